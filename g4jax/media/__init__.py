"""From files and arrays to what the encoders take. numpy only: no jax."""
