"""The LightningModules: each puts an encoder in front of the shared decoder."""
