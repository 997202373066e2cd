//! Operations of RFC 6902 on an object. They come from a plugin: what makes an object grow or nest without end is refused.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::limits::{DEPTH, OBJECT_BYTES};

/// Reads operations. The error is a reason.
pub(super) fn operations(operations: &Value) -> Result<Vec<PatchOperation>, String> {
    serde_json::from_value::<Patch>(operations.clone())
        .map(|patch| patch.0)
        .map_err(|error| format!("no operations of RFC 6902: {error}"))
}

/// Applies them in order. After an error the object is half changed; nobody uses it then.
pub(super) fn apply(object: &mut Value, operations: &[PatchOperation]) -> Result<(), String> {
    for (index, operation) in operations.iter().enumerate() {
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|error| {
            let path = crate::diagnostic::cut(operation.path().to_string(), 300);
            format!("operation {index} at {path}: {}", error.kind)
        })?;
        // One that copies doubles it; a few more fill the memory or the stack.
        let mut room = OBJECT_BYTES;
        if !is_within(object, DEPTH, &mut room) {
            return Err(format!("operation {index}: it grows beyond {OBJECT_BYTES} bytes or {DEPTH} levels"));
        }
    }
    Ok(())
}

/// Whether a value nests no deeper and takes no more room, counted roughly and never further than that.
pub(crate) fn is_within(value: &Value, depth: usize, room: &mut usize) -> bool {
    let mut take = |bytes: usize| match room.checked_sub(bytes) {
        Some(left) => {
            *room = left;
            true
        }
        None => false,
    };
    match value {
        Value::String(text) => take(text.len() + 3),
        Value::Array(items) => {
            take(2) && depth > 0 && items.iter().all(|item| is_within(item, depth - 1, room))
        }
        Value::Object(fields) => {
            let keys = fields.keys().map(|key| key.len() + 4).sum::<usize>();
            take(2 + keys) && depth > 0 && fields.values().all(|field| is_within(field, depth - 1, room))
        }
        _ => take(2),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut object: Value, patch: Value) -> Result<Value, String> {
        apply(&mut object, &operations(&patch)?)?;
        Ok(object)
    }

    #[test]
    fn the_operations_of_the_standard_are_there() {
        let patch = json!([
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "add", "path": "/list/0", "value": 0},
            {"op": "copy", "from": "/list/0", "path": "/first"},
            {"op": "move", "from": "/a~1b", "path": "/c~0d"},
            {"op": "remove", "path": "/list/1"},
            {"op": "test", "path": "/list", "value": [0, 3]},
            {"op": "replace", "path": "/first", "value": "x"},
        ]);
        let object = patched(json!({"list": [1], "a/b": true}), patch);
        assert_eq!(object, Ok(json!({"list": [0, 3], "first": "x", "c~d": true})));
    }

    #[test]
    fn an_operation_that_fits_nothing_says_which() {
        for (patch, said) in [
            (json!([{"op": "remove", "path": "/no"}]), "operation 0 at /no:"),
            (json!([{"op": "replace", "path": "/a/b", "value": 1}]), "operation 0 at /a/b:"),
            (json!([{"op": "test", "path": "/a", "value": 2}]), "operation 0 at /a: value did not match"),
            (json!([{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/a"}]), "operation 1 at /a:"),
        ] {
            let why = patched(json!({"a": 1}), patch).expect_err(said);
            assert!(why.starts_with(said), "{why}");
        }
    }

    #[test]
    fn an_object_neither_doubles_nor_nests_without_end() {
        let doubled: Vec<_> =
            (0..40).map(|number| json!({"op": "copy", "from": "", "path": format!("/x{number}")})).collect();
        let why = patched(json!({"a": "text"}), Value::Array(doubled)).expect_err("it doubles each time");
        assert!(why.contains("grows beyond"), "{why}");
        let nested: Vec<_> =
            (0..300).map(|depth| json!({"op": "add", "path": "/a".repeat(depth + 1), "value": {}})).collect();
        let why = patched(json!({}), Value::Array(nested)).expect_err("it nests");
        assert!(why.starts_with("operation 63: it grows beyond"), "{why}");
    }
}
