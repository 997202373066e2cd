//! The fake's other services.

use k8sctl_proto::control::v1::bundle_service_server::BundleService;
use k8sctl_proto::control::v1::host_service_server::HostService;
use k8sctl_proto::control::v1::image_service_server::ImageService;
use k8sctl_proto::control::v1::*;
use tonic::{Request, Response, Status};

use super::{FakeHostAgent, Reply, stream};

#[tonic::async_trait]
impl HostService for FakeHostAgent {
    async fn get_version(
        &self,
        request: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        self.called(request.into_inner())?;
        Ok(Response::new(GetVersionResponse { version: "9.9.9".to_owned(), protocol: 1 }))
    }

    async fn doctor(&self, request: Request<DoctorRequest>) -> Result<Response<DoctorResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(DoctorResponse { checks: answers.checks }))
    }

    type CollectSupportStream = Reply<CollectSupportResponse>;
    async fn collect_support(
        &self,
        request: Request<CollectSupportRequest>,
    ) -> Result<Response<Self::CollectSupportStream>, Status> {
        let answers = self.called(request.into_inner())?;
        let parts = answers.support.into_iter().map(|part| CollectSupportResponse { part: Some(part) });
        Ok(Response::new(stream(parts.collect(), answers.pace, answers.endless)))
    }
}

#[tonic::async_trait]
impl ImageService for FakeHostAgent {
    type BuildImageStream = Reply<BuildImageResponse>;
    async fn build_image(
        &self,
        request: Request<BuildImageRequest>,
    ) -> Result<Response<Self::BuildImageStream>, Status> {
        let answers = self.called(request.into_inner())?;
        let says = |progress: &str| BuildImageResponse { progress: progress.to_owned(), image: None };
        let last = BuildImageResponse { progress: String::new(), image: answers.images.first().cloned() };
        let all = vec![says("unpacking the base system"), says("importing container images"), last];
        Ok(Response::new(stream(all, answers.pace, false)))
    }

    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(ListImagesResponse { images: answers.images }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        let id = answers.images.first().map(|image| image.id.clone()).unwrap_or_default();
        Ok(Response::new(RemoveImageResponse { id }))
    }
}

#[tonic::async_trait]
impl BundleService for FakeHostAgent {
    type FetchBundleStream = Reply<FetchBundleResponse>;
    async fn fetch_bundle(
        &self,
        request: Request<FetchBundleRequest>,
    ) -> Result<Response<Self::FetchBundleStream>, Status> {
        let answers = self.called(request.into_inner())?;
        let mut all: Vec<_> = (0..100)
            .map(|done| FetchBundleResponse { progress: format!("kubelet: {done} of 100 MiB"), bundle: None })
            .collect();
        all.push(FetchBundleResponse { progress: String::new(), bundle: answers.bundles.first().cloned() });
        Ok(Response::new(stream(all, answers.pace, false)))
    }

    type ImportBundleStream = Reply<ImportBundleResponse>;
    async fn import_bundle(
        &self,
        request: Request<ImportBundleRequest>,
    ) -> Result<Response<Self::ImportBundleStream>, Status> {
        let answers = self.called(request.into_inner())?;
        let bundle = answers.bundles.first().cloned();
        let all = vec![ImportBundleResponse { progress: "verifying".to_owned(), bundle }];
        Ok(Response::new(stream(all, answers.pace, false)))
    }

    async fn list_bundles(
        &self,
        request: Request<ListBundlesRequest>,
    ) -> Result<Response<ListBundlesResponse>, Status> {
        let answers = self.called(request.into_inner())?;
        Ok(Response::new(ListBundlesResponse { bundles: answers.bundles }))
    }
}
