//! Checks of one reference case each, shared by the tests that find the cases. The values come from PyTorch.

pub mod optim;
pub mod schedules;
