"""The command line `rumus`; nothing here is loaded by `import rumus.train`."""
