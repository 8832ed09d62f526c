//! Models of the engine under loom: `make model`.
