"""Where the values of `@secrets` come from: sources as users write them, and a provider for each type of them."""
