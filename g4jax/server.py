"""`python -m g4jax.server`: hands over to `server.cli`, the HTTP side, which is a package of its own beside g4jax."""

import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """Runs the server until it is told to stop; the exit code is 2 for a wrong flag."""
    ours = Path(__file__).resolve().parents[1] / "server" / "__init__.py"
    found = importlib.util.find_spec("server")
    if found is None or found.origin is None or Path(found.origin).resolve() != ours:
        where = found.origin if found is not None and found.origin else "a folder in the working directory"
        print(
            f"g4jax: a foreign module named 'server' ({where}) hides {ours.parent}; start in another folder",
            file=sys.stderr,
        )
        return 2
    from server.cli import main as serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
