"""What the APIs beside chat completions share: each is a chat, asked for and answered in other words."""
