//! What happens when whoever has the lease does not come to its end.
