//! What a response tells about the token it was sent with: pure functions over status and headers.
