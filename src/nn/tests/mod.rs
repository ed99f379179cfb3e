//! Tests that need more than one file of this folder.

mod blocks;
mod pass;
mod text;
