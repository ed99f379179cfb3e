//! Tests that need more than one file of this folder.

mod pass;
mod text;
