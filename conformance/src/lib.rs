//! The conformance suite of fencelock: what every backend must keep.
