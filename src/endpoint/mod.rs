//! The token endpoint: a tower service from `TokenRequest` to `Token` over any HTTP service.
