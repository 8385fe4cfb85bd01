"""Generated from `router/proto/forebay/v1`; `make proto` writes it, nobody edits it."""
