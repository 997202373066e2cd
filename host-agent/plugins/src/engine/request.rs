//! One request to the API server about an object, as plain JSON, and how it may fail. Called by the rest of the engine
//! through [`super::retry`]; decides nothing.

use futures::StreamExt;
use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Request, WatchParams};
use kube::core::discovery::ApiResource;
use kube::core::response::Status;
use kube::core::{DynamicObject, ObjectList, PartialObjectMeta, WatchEvent};
use kube::{Error, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failures::chain;

/// A request that did not end well.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// The API server said no.
    Refused(Box<Status>),
    /// Nobody answered, or not to the end; and why.
    Unreachable(String),
    /// It could not be made.
    Request(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => Self::Refused(status),
            Error::BuildRequest(error) => Self::Request(chain(&error)),
            other => Self::Unreachable(chain(&other)),
        }
    }
}

impl Trouble {
    #[cfg(test)]
    pub(super) fn refused(code: u16, reason: &str, message: &str) -> Self {
        Self::Refused(Box::new(Status::failure(message, reason).with_code(code)))
    }

    /// The status, where the API server gave one.
    pub(super) fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) => Some(status),
            _ => None,
        }
    }

    /// The status' code; 0: there is none.
    pub(super) fn code(&self) -> u16 {
        self.status().map_or(0, |status| status.code)
    }

    /// What it says.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Refused(status) => &status.message,
            Self::Unreachable(why) | Self::Request(why) => why,
        }
    }

    /// The server knows the kind and has no such object.
    pub(super) fn is_absent(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404 && status.reason == "NotFound")
    }

    /// Nothing is served under this path: the kind has gone, or the server has just started.
    pub(super) fn is_not_served(&self) -> bool {
        self.code() == 404 && !self.is_absent()
    }

    /// Another manager has fields that we want.
    pub(super) fn is_field_conflict(&self) -> bool {
        let causes = self.status().and_then(|status| status.details.as_ref()).map(|details| &details.causes);
        self.code() == 409 && causes.into_iter().flatten().any(|cause| cause.reason == "FieldManagerConflict")
    }

    /// The object that we meant is not there any more, or is another one by now.
    pub(super) fn is_other_object(&self) -> bool {
        let said = self.message();
        match self.code() {
            409 => said.contains("uid mismatch") || said.contains("UID in precondition"),
            // There is another one: its UID is a field that cannot be changed.
            422 => {
                let causes = self.status().and_then(|status| status.details.as_ref());
                causes.is_some_and(|details| details.causes.iter().any(|cause| cause.field == "metadata.uid"))
            }
            _ => false,
        }
    }

    /// The server read the object and does not take it as it is.
    pub(super) fn is_invalid(&self) -> bool {
        // Server-side apply tells of what does not fit the schema by 500, without a reason.
        const TYPED: [&str; 5] = [
            "failed to create typed",
            "failed to convert",
            "field not declared in schema",
            "omits key field",
            "failed to create manager for",
        ];
        match self.code() {
            400 | 413 | 415 | 422 => true,
            500 => TYPED.iter().any(|text| self.message().contains(text)),
            _ => false,
        }
    }
}

/// Where the objects of a kind are, within a namespace where the kind has such.
#[derive(Clone)]
pub(super) struct Place {
    client: Client,
    request: Request,
}

impl Place {
    pub(super) fn new(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Self {
        let request = Request::new(DynamicObject::url_path(resource, namespace));
        Self { client: client.clone(), request }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Trouble> {
        let request = request.map_err(Error::BuildRequest)?;
        Ok(self.client.request(request).await?)
    }

    /// The whole object.
    pub(super) async fn get(&self, name: &str) -> Result<Value, Trouble> {
        self.send(self.request.get(name, &Default::default())).await
    }

    /// Its metadata alone.
    pub(super) async fn metadata(&self, name: &str) -> Result<Value, Trouble> {
        self.send(self.request.get_metadata(name, &Default::default())).await
    }

    /// Metadata of objects.
    pub(super) async fn list_metadata(&self, params: &ListParams) -> Result<Vec<Value>, Trouble> {
        let list: Value = self.send(self.request.list_metadata(params)).await?;
        Ok(items(list))
    }

    /// Metadata of objects as types.
    pub(super) async fn list_typed_metadata(
        &self,
        params: &ListParams,
    ) -> Result<Vec<PartialObjectMeta<DynamicObject>>, Trouble> {
        let list: ObjectList<PartialObjectMeta<DynamicObject>> =
            self.send(self.request.list_metadata(params)).await?;
        Ok(list.items)
    }

    /// Server-side apply; what the server then has.
    pub(super) async fn apply(
        &self,
        name: &str,
        params: &PatchParams,
        object: &Value,
    ) -> Result<Value, Trouble> {
        self.send(self.request.patch(name, params, &Patch::Apply(object))).await
    }

    /// Begins to delete it.
    pub(super) async fn delete(&self, name: &str, params: &DeleteParams) -> Result<(), Trouble> {
        let _gone: Value = self.send(self.request.delete(name, params)).await?;
        Ok(())
    }

    /// Returns at the first event about the object behind `version`; never, where it cannot be watched.
    pub(super) async fn changed(&self, name: &str, version: &str) {
        let params =
            WatchParams::default().fields(&format!("metadata.name={name}")).timeout(30).disable_bookmarks();
        if let Ok(request) = self.request.watch(&params, version)
            && let Ok(events) = self.client.request_events::<Value>(request).await
        {
            let mut events = std::pin::pin!(events);
            if let Some(Ok(event)) = events.next().await
                && !matches!(event, WatchEvent::Error(_))
            {
                return;
            }
        }
        // Nothing to watch, or it broke: the time decides.
        std::future::pending::<()>().await;
    }
}

fn items(mut list: Value) -> Vec<Value> {
    match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> Trouble {
        Trouble::refused(code, reason, message)
    }

    #[test]
    fn a_path_that_is_not_served_is_no_absent_object() {
        let absent = refused(404, "NotFound", "configmaps \"a\" not found");
        assert!(absent.is_absent() && !absent.is_not_served());
        let unknown = refused(404, "Failed to parse error data", "404 page not found");
        assert!(unknown.is_not_served() && !unknown.is_absent());
    }

    #[test]
    fn what_does_not_fit_the_schema_is_invalid_whatever_its_code() {
        let old = "failed to create typed patch object: .spec.ports: element 0: associative list with keys has an \
                   element that omits key field \"protocol\"";
        assert!(refused(500, "", old).is_invalid());
        assert!(refused(422, "Invalid", "spec.replicas: Invalid value").is_invalid());
        assert!(!refused(500, "InternalError", "etcdserver: request timed out").is_invalid());
    }

    #[test]
    fn conflicts_are_told_apart() {
        let cause = StatusCause {
            reason: "FieldManagerConflict".to_owned(),
            message: "conflict with \"somebody\"".to_owned(),
            field: ".spec.replicas".to_owned(),
        };
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds: 0,
        };
        let status = Status::failure("Apply failed with 1 conflict", "Conflict").with_code(409);
        let field = Trouble::Refused(Box::new(status.with_details(details)));
        assert!(field.is_field_conflict() && !field.is_other_object());
        let changed = refused(409, "Conflict", "the object has been modified; please apply your changes");
        assert!(!changed.is_field_conflict() && !changed.is_other_object());
        let said =
            "Operation cannot be fulfilled: uid mismatch: the provided object specified uid a, and none";
        assert!(refused(409, "Conflict", said).is_other_object());
        let cause = |field: &str| StatusCause {
            reason: "FieldValueInvalid".to_owned(),
            message: "Invalid value: \"a\": field is immutable".to_owned(),
            field: field.to_owned(),
        };
        let immutable = |field: &str| {
            let details = StatusDetails {
                name: String::new(),
                group: String::new(),
                kind: String::new(),
                uid: String::new(),
                causes: vec![cause(field)],
                retry_after_seconds: 0,
            };
            let status = Status::failure("it is invalid", "Invalid").with_code(422).with_details(details);
            Trouble::Refused(Box::new(status))
        };
        assert!(immutable("metadata.uid").is_other_object() && !immutable("spec.selector").is_other_object());
    }
}
