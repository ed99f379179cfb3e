//! Layers and initialisers.

pub mod init;
