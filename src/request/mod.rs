//! What is done to a request; knows nothing of how tokens are made.
