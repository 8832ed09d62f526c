//! A scriptable authorization server and API for tests.
