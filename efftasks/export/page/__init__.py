"""The page that runs an exported model in a browser: its files, and the runtime from npm that it needs."""
