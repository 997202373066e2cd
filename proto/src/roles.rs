//! The role that each control method asks for. Filled in by the build from the `.proto` files.

pub use crate::options::v1::Role;

/// Every control method with the least role that may call it, `("/package.Service/Method", role)`.
pub const CONTROL_METHODS: &[(&str, Role)] = include!(concat!(env!("OUT_DIR"), "/roles.rs"));

/// The least role for a gRPC path. `None` means: no such method, so nobody may call it.
pub fn required_role(path: &str) -> Option<Role> {
    CONTROL_METHODS.iter().find(|(known, _)| *known == path).map(|(_, role)| *role)
}
