"""The command `sel`: enhance, evaluate, app, export, convert."""
