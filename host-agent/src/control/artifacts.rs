//! Bundles and node images.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use host_artifacts::bundle::{Bundle, BundleStore};
use host_artifacts::fetch::{FetchSources, fetch};
use host_artifacts::image::{BuildInputs, DamagedImage, Image, Packages};
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::control::v1::bundle_service_server::BundleService;
use k8sctl_proto::control::v1::image_service_server::ImageService;
use k8sctl_types::failure::Failure;
use k8sctl_types::suite;
use k8sctl_types::version::{KubernetesVersion, VersionError};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::queue::{Queues, caller};
use super::{LINES, Reply, broken, forward, refused, stream};
use crate::cluster::manager::Manager;
use crate::cluster::release::choose_bundle;
use crate::cluster::shared::Shared;
use crate::wire;

/// See [`ImageService`].
#[derive(Debug)]
pub(super) struct Images {
    pub(super) manager: Arc<Manager>,
    pub(super) queues: Queues,
}

/// See [`BundleService`].
#[derive(Debug)]
pub(super) struct Bundles {
    pub(super) manager: Arc<Manager>,
    pub(super) queues: Queues,
}

/// Names of the clusters that use each image.
async fn used_by(shared: &Shared) -> Result<BTreeMap<String, Vec<String>>, Status> {
    let (clusters, damaged) = shared.records.all_clusters().await.map_err(|error| broken(&error))?;
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for cluster in clusters {
        users.entry(cluster.image_id).or_default().push(cluster.name);
    }
    for cluster in damaged {
        users.entry(cluster.image_id).or_default().push(cluster.name);
    }
    Ok(users)
}

/// All images, damaged ones behind the others.
async fn list_images(shared: &Shared) -> Result<Vec<control::Image>, Status> {
    let (used_by, images) = (used_by(shared).await?, shared.images.clone());
    blocking(move || {
        let users = |image: &Image| used_by.get(&image.id).cloned().unwrap_or_default();
        let sound = images.list()?;
        let mut all: Vec<_> = sound.iter().map(|image| wire_image(image, &users(image))).collect();
        all.extend(images.damaged().into_iter().map(|image| wire_damaged(image, &used_by)));
        Ok(all)
    })
    .await
}

#[tonic::async_trait]
impl ImageService for Images {
    type BuildImageStream = Reply<control::BuildImageResponse>;

    async fn build_image(
        &self,
        request: Request<control::BuildImageRequest>,
    ) -> Result<Response<Self::BuildImageStream>, Status> {
        let request = request.into_inner();
        let shared = Arc::clone(self.manager.shared());
        let suite = if request.suite.is_empty() { suite::DEFAULT.to_owned() } else { request.suite };
        let bundles = shared.bundles.clone();
        let (name, version, of_suite) = (request.bundle, request.kubernetes_version, suite.clone());
        let bundle = blocking(move || match name.as_str() {
            "" => bundle_of(&bundles, &version, &of_suite),
            name => bundles.by_name(name),
        })
        .await?;
        let node_agent = shared.config.node_agent.clone();
        let inputs = BuildInputs { bundle, suite, node_agent, debug_unit: request.debug_unit };
        let packages = if request.refresh { Packages::Current } else { Packages::AsBuilt };
        let reply = stream("build-image", |sender| async move {
            let (lines, receiver) = mpsc::channel(LINES);
            let progress = forward(receiver, sender.clone(), |progress| control::BuildImageResponse {
                progress,
                image: None,
            });
            let build = async { shared.images.build(inputs, packages, lines).await };
            let (image, ()) = tokio::join!(build, progress);
            let image = image.map_err(|failure| refused(&failure))?;
            let response =
                control::BuildImageResponse { progress: String::new(), image: Some(wire_image(&image, &[])) };
            // The client may be gone; the image stays.
            let _ = sender.send(Ok(response)).await;
            Ok(())
        });
        Ok(Response::new(reply))
    }

    async fn list_images(
        &self,
        request: Request<control::ListImagesRequest>,
    ) -> Result<Response<control::ListImagesResponse>, Status> {
        let shared = Arc::clone(self.manager.shared());
        let list = async move { list_images(&shared).await };
        let images = self.queues.reads.run("list-images", caller(&request), list).await??;
        Ok(Response::new(control::ListImagesResponse { images }))
    }

    async fn remove_image(
        &self,
        request: Request<control::RemoveImageRequest>,
    ) -> Result<Response<control::RemoveImageResponse>, Status> {
        let (uid, shared) = (caller(&request), Arc::clone(self.manager.shared()));
        let id = request.into_inner().id;
        let remove = async move {
            let (used, images) = (used_by(&shared).await?, shared.images.clone());
            blocking(move || images.remove(&id, &used)).await
        };
        let id = self.queues.reads.run("remove-image", uid, remove).await??;
        Ok(Response::new(control::RemoveImageResponse { id }))
    }
}

#[tonic::async_trait]
impl BundleService for Bundles {
    type FetchBundleStream = Reply<control::FetchBundleResponse>;

    async fn fetch_bundle(
        &self,
        request: Request<control::FetchBundleRequest>,
    ) -> Result<Response<Self::FetchBundleStream>, Status> {
        let wanted = request.into_inner().kubernetes_version;
        let version = match wanted.as_str() {
            "" => host_artifacts::fetch::default_release(),
            text => version(text).map_err(|failure| refused(&failure))?,
        };
        let shared = Arc::clone(self.manager.shared());
        let reply = stream("fetch-bundle", |sender| async move {
            let (lines, receiver) = mpsc::channel(LINES);
            let progress = forward(receiver, sender.clone(), |progress| control::FetchBundleResponse {
                progress,
                bundle: None,
            });
            let sources = FetchSources::default();
            let work = async { fetch(&shared.bundles, &version, &sources, lines).await };
            let (bundle, ()) = tokio::join!(work, progress);
            let bundle = bundle.map_err(|failure| refused(&failure))?;
            let response =
                control::FetchBundleResponse { progress: String::new(), bundle: Some(wire_bundle(&bundle)) };
            // The client may be gone; the bundle stays.
            let _ = sender.send(Ok(response)).await;
            Ok(())
        });
        Ok(Response::new(reply))
    }

    type ImportBundleStream = Reply<control::ImportBundleResponse>;

    async fn import_bundle(
        &self,
        request: Request<control::ImportBundleRequest>,
    ) -> Result<Response<Self::ImportBundleStream>, Status> {
        let path = request.into_inner().path;
        let shared = Arc::clone(self.manager.shared());
        let reply = stream("import-bundle", |sender| async move {
            let lines = sender.clone();
            let say = move |progress| {
                // The client may be gone; the import goes on.
                let _ = lines.blocking_send(Ok(control::ImportBundleResponse { progress, bundle: None }));
            };
            let import = tokio::task::spawn_blocking(move || shared.bundles.import(Path::new(&path), say));
            let bundle =
                import.await.map_err(|error| broken(&error))?.map_err(|failure| refused(&failure))?;
            let bundle = Some(wire_bundle(&bundle));
            let _ = sender.send(Ok(control::ImportBundleResponse { progress: String::new(), bundle })).await;
            Ok(())
        });
        Ok(Response::new(reply))
    }

    async fn list_bundles(
        &self,
        request: Request<control::ListBundlesRequest>,
    ) -> Result<Response<control::ListBundlesResponse>, Status> {
        let bundles = self.manager.shared().bundles.clone();
        let list = blocking(move || -> Result<Vec<control::Bundle>, Failure> {
            let listing = bundles.list()?;
            let broken = listing.broken.into_iter().map(wire_broken);
            Ok(listing.bundles.iter().map(wire_bundle).chain(broken).collect())
        });
        let bundles = self.queues.reads.run("list-bundles", caller(&request), list).await??;
        Ok(Response::new(control::ListBundlesResponse { bundles }))
    }
}

/// Reads files off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| broken(&error))?;
    done.map_err(|failure| refused(&failure))
}

/// The bundle of this version; empty means: the newest.
fn bundle_of(bundles: &BundleStore, wanted: &str, suite: &str) -> Result<Bundle, Failure> {
    let wanted = Some(wanted).filter(|text| !text.is_empty()).map(version).transpose()?;
    choose_bundle(&bundles.list()?, wanted.as_ref(), suite)
}

fn version(text: &str) -> Result<KubernetesVersion, Failure> {
    text.parse().map_err(|error: VersionError| {
        Failure::new(
            "BUNDLE-VERSION",
            format!("bundle {text}"),
            error.to_string(),
            "write the version as in `k8sctl bundle fetch --kubernetes v1.29.0`",
        )
    })
}

fn wire_bundle(bundle: &Bundle) -> control::Bundle {
    control::Bundle {
        name: bundle.manifest.name.clone(),
        kubernetes_version: bundle.manifest.kubernetes.to_string(),
        arch: bundle.manifest.arch.clone(),
        trial: bundle.manifest.trial,
        size_bytes: bundle.size,
        path: bundle.path.display().to_string(),
        problem: None,
    }
}

/// A file that is no bundle, of which only the object of its failure tells.
fn wire_broken(broken: Failure) -> control::Bundle {
    let path = broken.object.strip_prefix("bundle ").unwrap_or(&broken.object).to_owned();
    control::Bundle {
        size_bytes: std::fs::metadata(&path).map(|data| data.len()).unwrap_or_default(),
        path,
        problem: Some(wire::failure(&broken)),
        ..control::Bundle::default()
    }
}

fn wire_damaged(image: DamagedImage, used_by: &BTreeMap<String, Vec<String>>) -> control::Image {
    let DamagedImage { id, made_of, failure } = image;
    let (kubernetes_version, bundle, suite, trial) = made_of
        .map(|made| (made.kubernetes.to_string(), made.bundle, made.suite, made.trial))
        .unwrap_or_default();
    let (used_by, problem) = (used_by.get(&id).cloned().unwrap_or_default(), Some(wire::failure(&failure)));
    control::Image { id, kubernetes_version, bundle, suite, trial, used_by, problem, ..Default::default() }
}

fn wire_image(image: &Image, used_by: &[String]) -> control::Image {
    control::Image {
        id: image.id.clone(),
        kubernetes_version: image.kubernetes.to_string(),
        bundle: image.bundle.clone(),
        suite: image.suite.clone(),
        size_bytes: image.size,
        created: created(image),
        trial: image.trial,
        used_by: used_by.to_vec(),
        problem: None,
    }
}

fn created(image: &Image) -> Option<prost_types::Timestamp> {
    let modified = std::fs::metadata(&image.disk).and_then(|data| data.modified()).ok()?;
    jiff::Timestamp::try_from(modified).ok().map(wire::timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_listed_with_what_is_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kubernetes-v1.30.0.k8sbundle");
        std::fs::write(&path, "no tar").expect("it is written");
        let listing = BundleStore::new(dir.path()).list().expect("it lists");
        let [broken] = <[Failure; 1]>::try_from(listing.broken).expect("one is broken");
        let bundle = wire_broken(broken);
        assert_eq!((bundle.path, bundle.size_bytes), (path.display().to_string(), 6));
        assert_eq!(bundle.problem.map(|problem| problem.id).as_deref(), Some("BUNDLE-CORRUPT"));

        let failure = Failure::new("IMAGE-DAMAGED", "image aa11", "a file is missing", "build it again");
        let users = BTreeMap::from([("aa11".to_owned(), vec!["home".to_owned()])]);
        let image = wire_damaged(DamagedImage { id: "aa11".to_owned(), made_of: None, failure }, &users);
        assert_eq!((image.id.as_str(), image.used_by.as_slice()), ("aa11", ["home".to_owned()].as_slice()));
        assert_eq!(image.problem.map(|problem| problem.reason).as_deref(), Some("a file is missing"));
    }
}
