//! The GPU executor. This is the only folder that names wgpu; ops know no more of it than [`lower`].

pub mod conv;
pub mod lower;
pub mod matmul;
