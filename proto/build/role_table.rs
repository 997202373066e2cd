//! The table of roles from the `role` option of each control method. Part of the build script, and of a test of it.

use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, MethodDescriptor, Value};

/// A Rust slice literal `[("/package.Service/Method", Role::…), …]` over every method of the control package; `Err` says
/// which method has no role.
pub fn role_table(pool: &DescriptorPool) -> Result<String, String> {
    let option =
        pool.get_extension_by_name("k8sctl.options.v1.role").expect("options.proto defines the role option");
    let role = |method: &MethodDescriptor| match method.options().get_extension(&option).into_owned() {
        Value::EnumNumber(number) => number,
        _ => 0,
    };
    let mut table = String::from("&[\n");
    for service in pool.services().filter(|s| s.package_name() == "k8sctl.control.v1") {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let variant = match role(&method) {
                1 => "Reader",
                2 => "Operator",
                3 => "Admin",
                _ => {
                    let mend = "add `option (k8sctl.options.v1.role) = ROLE_…;` to it";
                    return Err(format!("{path} has no role: {mend}"));
                }
            };
            writeln!(table, "    (\"{path}\", Role::{variant}),").expect("writing to a String");
        }
    }
    table.push(']');
    Ok(table)
}
