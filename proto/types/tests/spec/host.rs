//! A spec on hosts of different sizes.

use k8sctl_types::spec::{self, check_host};

use crate::HOME;

const GIB: u64 = 1 << 30;

fn ids(memory: u64, cpus: u32, disk: u64) -> Vec<(&'static str, bool)> {
    let spec = spec::parse(HOME).expect("home is good").spec;
    check_host(&spec, memory, cpus, disk).iter().map(|found| (found.id, found.warning)).collect()
}

#[test]
fn home_fits_a_host_of_its_size() {
    assert_eq!(ids(17 * GIB, 8, 110 * GIB), []);
}

#[test]
fn memory_is_an_error_and_the_rest_are_warnings() {
    assert_eq!(ids(16 * GIB - 1, 8, 110 * GIB), [("SPEC-HOST-MEMORY", false)]);
    assert_eq!(ids(16 * GIB, 8, 110 * GIB), [("SPEC-HOST-MEMORY-TIGHT", true)]);
    assert_eq!(ids(64 * GIB, 7, 110 * GIB), [("SPEC-HOST-VCPUS", true)]);
    assert_eq!(ids(64 * GIB, 8, 110 * GIB - 1), [("SPEC-HOST-DISK", true)]);
    let all = ids(0, 0, 0);
    assert_eq!(all, [("SPEC-HOST-MEMORY", false), ("SPEC-HOST-VCPUS", true), ("SPEC-HOST-DISK", true)]);
}
