//! Which installed bundle a version means and which image a cluster gets, and what to say where a bundle or a node image is
//! missing: commands that lead to the version that is wanted, not to the newest.

use host_artifacts::bundle::{Bundle, Listing};
use host_artifacts::fetch::releases::{companions, supported};
use host_artifacts::image::Image;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::ClusterSpec;
use k8sctl_types::version::KubernetesVersion;

use super::manager::RequestError;
use super::shared::Shared;
use crate::records::ClusterRecord;

/// The bundle of this version, else the newest; or why there is none. `suite` is that of the image to come.
pub fn choose_bundle(
    listing: &Listing,
    wanted: Option<&KubernetesVersion>,
    suite: &str,
) -> Result<Bundle, Failure> {
    let fits = |bundle: &&Bundle| wanted.is_none_or(|version| bundle.manifest.kubernetes == *version);
    if let Some(bundle) = listing.bundles.iter().find(fits) {
        return Ok(bundle.clone());
    }
    // What version a broken file has cannot be read from it; its name says.
    let may_be_it =
        |failure: &&Failure| wanted.is_none_or(|version| failure.object.contains(&version.to_string()));
    match listing.broken.iter().find(may_be_it) {
        Some(broken) => Err(broken.clone()),
        None => Err(no_bundle(wanted, suite)),
    }
}

fn no_bundle(wanted: Option<&KubernetesVersion>, suite: &str) -> Failure {
    let Some(version) = wanted else {
        return Failure::new(
            "BUNDLE-MISSING",
            "bundle",
            "no Kubernetes bundle is installed",
            format!("get one with `k8sctl bundle fetch`, then `k8sctl image build --suite {suite}`"),
        );
    };
    let next = match companions(version) {
        // `bundle fetch` names what it makes so.
        Some(_) => format!(
            "get it with `k8sctl bundle fetch --kubernetes {version}`, then \
             `k8sctl image build --bundle kubernetes-{version} --suite {suite}`"
        ),
        None => format!(
            "`k8sctl bundle fetch` gets {} only: import a bundle of {version} with `k8sctl bundle import FILE`, then \
             make its image with `k8sctl image build -f FILE`, your cluster file; or set kubernetes to one that can be \
             fetched",
            supported()
        ),
    };
    Failure::new(
        "BUNDLE-MISSING",
        format!("bundle {version}"),
        format!("Kubernetes {version} is wanted and no bundle of it is installed"),
        next,
    )
}

/// There is a bundle and no image of it.
pub fn no_image(bundle: &Bundle, suite: &str) -> Failure {
    let manifest = &bundle.manifest;
    Failure::new(
        "IMAGE-MISSING",
        format!("node image {suite}"),
        format!("no node image is built for Kubernetes {}", manifest.kubernetes),
        format!("build it with `k8sctl image build --bundle {} --suite {suite}`", manifest.name),
    )
}

/// The image for new nodes: that of the cluster while it fits, else the newest that fits; without any bundle, the newest
/// of all. `pinned` is where the file names the release.
pub(super) fn choose_image(
    shared: &Shared,
    spec: &ClusterSpec,
    record: Option<&ClusterRecord>,
    pinned: &str,
) -> Result<Image, RequestError> {
    let images = shared.images.list()?;
    // A cluster keeps its release where the file names none; a new one is of the newest bundle installed.
    let wanted = match (&spec.kubernetes, record) {
        (Some(version), _) => Some(version.clone()),
        (None, Some(old)) => old.kubernetes.parse().ok(),
        (None, None) => {
            shared.bundles.list()?.bundles.into_iter().next().map(|bundle| bundle.manifest.kubernetes)
        }
    };
    let fits = |image: &&Image| {
        wanted.as_ref().is_none_or(|version| image.kubernetes == *version) && image.suite == spec.image.suite
    };
    let current =
        record.and_then(|record| images.iter().find(|image| image.id == record.image_id)).filter(fits);
    if let Some(image) = current {
        return Ok(image.clone());
    }
    if let Some(record) = record.filter(|old| wanted.as_ref().is_none_or(|v| v.to_string() == old.kubernetes))
    {
        tracing::warn!(cluster.name = %record.name, image.id = %record.image_id, "the cluster's image is gone");
    }
    if let Some(image) = images
        .iter()
        .filter(fits)
        .max_by(|a, b| (!a.trial, &a.kubernetes, a.built).cmp(&(!b.trial, &b.kubernetes, b.built)))
    {
        return Ok(image.clone());
    }
    // One without a readable description could be of anything: it is listed, and no reason here.
    let mut damaged = shared.images.damaged().into_iter().filter(|image| {
        image.made_of.as_ref().is_some_and(|made| {
            wanted.as_ref().is_none_or(|version| made.kubernetes == *version)
                && made.suite == spec.image.suite
        })
    });
    if let Some(damaged) = damaged.next() {
        return Err(damaged.failure.into());
    }
    let suite = &spec.image.suite;
    let bundle = choose_bundle(&shared.bundles.list()?, wanted.as_ref(), suite).map_err(|mut failure| {
        if failure.id == "BUNDLE-MISSING" {
            failure.reason.insert_str(0, pinned);
        }
        failure
    })?;
    Err(no_image(&bundle, suite).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(name: &str, version: &str) -> Bundle {
        let manifest = serde_json::json!({
            "format": 1, "kubernetes": version, "arch": "x86_64", "name": name, "trial": false, "source": "",
            "image": [], "component": [],
        });
        Bundle {
            path: name.into(),
            digest: String::new(),
            size: 0,
            manifest: serde_json::from_value(manifest).expect("a manifest"),
        }
    }

    fn listing() -> Listing {
        let bundles = vec![bundle("kubernetes-v1.34.1", "v1.34.1"), bundle("mine", "v1.28.3")];
        let broken = vec![Failure::new("BUNDLE-CORRUPT", "bundle /b/kubernetes-v1.30.0.k8sbundle", "", "")];
        Listing { bundles, broken }
    }

    fn chosen(wanted: &str) -> Result<String, Failure> {
        let version =
            Some(wanted).filter(|text| !text.is_empty()).map(|text| text.parse().expect("a version"));
        choose_bundle(&listing(), version.as_ref(), "trixie").map(|bundle| bundle.manifest.name)
    }

    #[test]
    fn the_newest_or_the_one_that_is_wanted() {
        assert_eq!(chosen("").expect("there is one"), "kubernetes-v1.34.1");
        assert_eq!(chosen("v1.28.3").expect("there is one"), "mine");
        assert_eq!(chosen("v1.30.0").expect_err("it is broken").id, "BUNDLE-CORRUPT");
        let empty = choose_bundle(&Listing::default(), None, "trixie").expect_err("there is none");
        assert!(empty.next_step.contains("`k8sctl image build --suite trixie`"), "{}", empty.next_step);
    }

    #[test]
    fn a_pinned_version_is_reached_by_the_commands_named() {
        let next = chosen("v1.29.0").expect_err("it is not installed").next_step;
        for command in [
            "`k8sctl bundle fetch --kubernetes v1.29.0`",
            "`k8sctl image build --bundle kubernetes-v1.29.0 --suite trixie`",
        ] {
            assert!(next.contains(command), "{next}");
        }
        let image = no_image(&bundle("mine", "v1.28.3"), "trixie");
        assert!(image.next_step.contains("`k8sctl image build --bundle mine --suite trixie`"));
    }

    #[test]
    fn what_cannot_be_fetched_is_to_be_imported() {
        let next = chosen("v1.27.1").expect_err("it is not installed").next_step;
        assert!(next.contains("`k8sctl bundle import FILE`") && next.contains("v1.29 to v1.36"), "{next}");
        assert!(!next.contains("fetch --kubernetes"), "{next}");
    }
}
