//! Generates the wire types, the table of roles from the `role` option of each control method, and the shapes by which
//! parts of messages are counted.
//!
//! A control method without a role ends the build: nobody can add a call and forget who may make it.

#[path = "build/role_table.rs"]
mod role_table;
#[path = "build/shapes.rs"]
mod shapes;

use std::path::Path;
use std::{env, fs};

use role_table::role_table;

const FILES: [&str; 4] = [
    "k8sctl/options/v1/options.proto",
    "k8sctl/node/v1/node.proto",
    "k8sctl/control/v1/control.proto",
    "k8sctl/plugin/v1/plugin.proto",
];

fn main() {
    for file in FILES.iter().chain(&["build.rs", "build/role_table.rs", "build/shapes.rs"]) {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."]).expect("the proto directory is readable");
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES).expect("the proto files compile");

    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let roles = role_table(&compiler.descriptor_pool()).unwrap_or_else(|missing| panic!("{missing}"));
    fs::write(Path::new(&out).join("roles.rs"), roles).expect("OUT_DIR is writable");
    let shapes = shapes::shapes(&compiler.descriptor_pool());
    fs::write(Path::new(&out).join("shapes.rs"), shapes).expect("OUT_DIR is writable");

    tonic_prost_build::configure()
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds(compiler.file_descriptor_set())
        .expect("the descriptors generate");
}
