//! The storm rule: when a rejected token may be refreshed.
