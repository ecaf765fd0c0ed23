//! The Redis backend of fencelock.
