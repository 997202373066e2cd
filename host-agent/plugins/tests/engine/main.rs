//! The engine against a real API server: every rule of it, the good case and the bad one. `SCENARIO=part-of-a-name` runs
//! some of them.

#[path = "../common/mod.rs"]
mod common;
mod gates;
mod handling;
mod install;
mod refusals;
mod removal;
mod secrets;
mod waits;

use common::Installation;
use common::cluster::Cluster;
use common::kubelet::Kubelet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use plugin_plan::ObjectKey;
use serde_json::Value;

/// What scenarios share.
pub struct Bench {
    cluster: Cluster,
    kubelet: Kubelet,
}

impl Bench {
    fn installation(&self, plugin: &str) -> Installation {
        Installation::new(&self.cluster, plugin)
    }

    /// What people do, who are not the engine.
    fn people(&self) -> &Client {
        &self.cluster.people
    }

    /// Where an object of any kind is.
    async fn api_of(&self, object: &Value) -> Api<DynamicObject> {
        let key = ObjectKey::of(object).expect("an object");
        let kind = GroupVersionKind::gvk(&key.group, &key.version, &key.kind);
        let client = self.people().clone();
        let (resource, _) = kube::discovery::pinned_kind(&client, &kind).await.expect("it is served");
        if key.namespace.is_empty() {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, &key.namespace, &resource)
        }
    }

    /// People make an object, or change it.
    async fn put(&self, object: Value) -> DynamicObject {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let params = PatchParams::apply("people").force();
        self.api_of(&object).await.patch(&name, &params, &Patch::Apply(&object)).await.expect("it is made")
    }

    /// An object as it is, by another one of its name.
    async fn live(&self, object: &Value) -> Option<Value> {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let live = self.api_of(object).await.get_opt(name).await.expect("the API answers");
        live.map(|live| serde_json::to_value(&live).expect("JSON"))
    }

    async fn version(&self, object: &Value) -> String {
        let live = self.live(object).await.expect("it is there");
        live["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
    }

    fn maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.people().clone(), namespace)
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.people().clone())
    }
}

#[tokio::test]
async fn the_engine_keeps_its_rules() {
    let Some(cluster) = Cluster::start().await else { return };
    let kubelet = Kubelet::start(&cluster.people);
    let mut bench = Bench { cluster, kubelet };
    let all = crate::scenarios![Bench:
        install::an_installation_comes_stays_changes_and_goes,
        install::what_a_plan_has_no_more_goes_by_its_uid,
        install::many_at_once_go_with_consent_only,
        install::what_others_made_stays_theirs_unless_it_is_taken_over,
        install::a_difference_is_shown_and_nothing_is_written,
        // Before any kind is defined: when kinds come or go the garbage collector stops for a while.
        refusals::an_object_is_made_anew_where_the_plan_allows_it,
        removal::pods_are_gone_before_their_namespace_is_deleted,
        handling::a_field_that_somebody_took_is_taken_back,
        handling::a_field_is_left_to_others_where_the_plan_says_so,
        handling::certificate_authorities_that_others_put_in_stay,
        handling::definitions_stay_as_they_are_in_a_rollback,
        secrets::a_value_is_in_the_cluster_and_nowhere_else,
        secrets::another_value_is_written,
        refusals::a_field_that_cannot_be_changed_stops_everything,
        refusals::an_object_of_more_than_a_mebibyte_is_no_plan,
        refusals::a_field_that_the_server_does_not_know_is_refused_before_any_write,
        refusals::a_field_that_a_definition_does_not_know_is_refused_before_any_write,
        refusals::a_kind_and_a_namespace_that_are_not_there_are_refused,
        waits::a_wait_that_fails_says_what_blocks_and_the_next_one_goes_on,
        waits::what_is_ready_for_a_moment_only_is_not_ready,
        waits::a_job_that_failed_fails_at_once,
        waits::a_daemon_set_without_nodes_is_ready_where_the_plan_says_so,
        waits::a_claim_that_waits_for_a_pod_holds_up_nothing,
        waits::a_pod_that_cannot_pull_is_named_while_it_blocks,
        gates::a_kind_is_served_before_its_objects_are_applied,
        gates::a_definition_whose_names_are_taken_fails_and_says_so,
        gates::a_webhook_that_comes_up_late_is_waited_for,
        gates::a_webhook_that_never_answers_fails_before_its_objects,
        removal::what_is_not_ours_is_neither_changed_nor_deleted,
        removal::what_takes_the_place_of_ours_before_it_is_deleted_is_left_alone,
        removal::a_namespace_that_stays_says_which_pod_holds_it,
        removal::data_and_definitions_with_others_objects_are_kept,
        removal::a_namespace_that_ends_is_waited_for,
        removal::a_kind_is_gone_when_its_definition_is_and_not_before,
        removal::an_object_is_found_in_the_version_that_is_served_now,
    ];
    common::scenarios::run(&mut bench, &all).await;
}
