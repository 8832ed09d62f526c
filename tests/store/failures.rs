//! What happens when the store fails.
