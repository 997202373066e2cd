//! Queries on the join tables. Each function is one atomic step.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use super::decide::{Attempt, Decision, Grant, TokenRecord, TokenState, decide_join};
use super::{JoinError, Refusal};

type Result<T> = std::result::Result<T, JoinError>;

/// Puts a fresh token in the place of the node's old one. `false` means that the node was removed.
pub(super) fn offer(connection: &mut Connection, node_id: &str, record: &TokenRecord) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_revoked(&transaction, node_id)? {
        return Ok(false);
    }
    transaction.execute(
        "INSERT OR REPLACE INTO join_token (node_id, cluster_id, machine_uuid, secret_hash, expires, state)
         VALUES (?1, ?2, ?3, ?4, ?5, 'unused')",
        params![
            node_id,
            record.cluster_id,
            record.machine_uuid,
            record.secret_hash,
            record.expires.as_second()
        ],
    )?;
    transaction.commit()?;
    Ok(true)
}

/// Decides on an attempt and, where it is the first, burns the token for it with this grant. What was burned is on
/// the disk when this returns.
pub(super) fn decide(
    connection: &mut Connection,
    node_id: &str,
    attempt: &Attempt,
    grant: &Grant,
    now: Timestamp,
) -> Result<(Option<TokenRecord>, Decision)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let attempt = Attempt { revoked: is_revoked(&transaction, node_id)?, ..attempt.clone() };
    let record = token(&transaction, node_id)?;
    let mut decision = decide_join(record.as_ref(), &attempt, now);
    if decision == Decision::Burn {
        let burned = transaction.execute(
            "UPDATE join_token SET state = 'burned', csr_hash = ?2, serial = ?3, issued = ?4
             WHERE node_id = ?1 AND state = 'unused'",
            params![node_id, grant.csr_hash, grant.serial, grant.issued.as_second()],
        )?;
        decision =
            if burned == 1 { Decision::Finish(grant.clone()) } else { Decision::Refuse(Refusal::OtherKey) };
    }
    transaction.commit()?;
    Ok((record, decision))
}

/// Stores the certificate of a grant, and gives the one that is stored: the same for everybody who signs the same
/// grant. `None` means that the token was replaced or the node removed meanwhile.
pub(super) fn certify(
    connection: &mut Connection,
    node_id: &str,
    grant: &Grant,
    certificate: &[u8],
) -> Result<Option<Vec<u8>>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "UPDATE join_token SET certificate = ?3
         WHERE node_id = ?1 AND serial = ?2 AND state = 'burned' AND certificate IS NULL",
        params![node_id, grant.serial, certificate],
    )?;
    let stored = transaction
        .query_row(
            "SELECT certificate FROM join_token WHERE node_id = ?1 AND serial = ?2 AND state = 'burned'",
            params![node_id, grant.serial],
            |row| row.get::<_, Option<Vec<u8>>>(0),
        )
        .optional()?
        .flatten();
    if stored.is_some() {
        set_next(&transaction, node_id, &hex::encode(grant.serial))?;
    }
    transaction.commit()?;
    Ok(stored)
}

/// Makes a renewed certificate the successor, if the caller's own is good.
pub(super) fn renewed(connection: &mut Connection, node_id: &str, serial: &str, next: &str) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let good = is_good(&transaction, node_id, serial)?;
    if good {
        // Whoever calls with the successor has begun to use it.
        use_serial(&transaction, node_id, serial)?;
        set_next(&transaction, node_id, next)?;
    }
    transaction.commit()?;
    Ok(good)
}

/// A node came in with this certificate: its token is closed, and older certificates end. `false` means that the
/// certificate is not good.
pub(super) fn session(connection: &mut Connection, node_id: &str, serial: &str) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let good = is_good(&transaction, node_id, serial)?;
    if good {
        use_serial(&transaction, node_id, serial)?;
        transaction.execute(
            "UPDATE join_token SET state = 'closed' WHERE node_id = ?1 AND state = 'burned' AND lower(hex(serial)) = ?2",
            params![node_id, serial],
        )?;
    }
    transaction.commit()?;
    Ok(good)
}

/// Ends everything of a node, for ever.
pub(super) fn revoke(connection: &mut Connection, node_id: &str, now: Timestamp) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT OR IGNORE INTO revoked_node (node_id, since) VALUES (?1, ?2)",
        params![node_id, now.as_second()],
    )?;
    transaction.execute("DELETE FROM join_token WHERE node_id = ?1", [node_id])?;
    transaction.execute("DELETE FROM node_serial WHERE node_id = ?1", [node_id])?;
    transaction.commit()?;
    Ok(())
}

/// Whether the node may show this certificate.
pub(super) fn is_good(connection: &Connection, node_id: &str, serial: &str) -> Result<bool> {
    let mut query = connection.prepare_cached(
        "SELECT 1 FROM node_serial WHERE node_id = ?1 AND (current = ?2 OR next = ?2)
           AND NOT EXISTS (SELECT 1 FROM revoked_node r WHERE r.node_id = ?1)",
    )?;
    Ok(query.exists(params![node_id, serial])?)
}

/// The node's token.
pub(super) fn token(connection: &Connection, node_id: &str) -> Result<Option<TokenRecord>> {
    let mut query = connection.prepare_cached(
        "SELECT cluster_id, machine_uuid, secret_hash, expires, state, csr_hash, serial, issued, certificate
         FROM join_token WHERE node_id = ?1",
    )?;
    Ok(query.query_row([node_id], record).optional()?)
}

fn record(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    let state = match row.get::<_, String>(4)?.as_str() {
        "unused" => TokenState::Unused,
        "burned" => TokenState::Burned(Grant {
            csr_hash: row.get(5)?,
            serial: row.get(6)?,
            issued: second(row.get(7)?),
            certificate: row.get(8)?,
        }),
        _ => TokenState::Closed,
    };
    Ok(TokenRecord {
        cluster_id: row.get(0)?,
        machine_uuid: row.get(1)?,
        secret_hash: row.get(2)?,
        expires: second(row.get(3)?),
        state,
    })
}

/// A time from the table; one out of range is long ago.
fn second(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN)
}

fn is_revoked(connection: &Connection, node_id: &str) -> Result<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM revoked_node WHERE node_id = ?1")?.exists([node_id])?)
}

fn set_next(connection: &Connection, node_id: &str, next: &str) -> Result<()> {
    connection.execute(
        "INSERT INTO node_serial (node_id, next) VALUES (?1, ?2)
         ON CONFLICT (node_id) DO UPDATE SET next = excluded.next WHERE current IS NOT excluded.next",
        params![node_id, next],
    )?;
    Ok(())
}

fn use_serial(connection: &Connection, node_id: &str, serial: &str) -> Result<()> {
    connection.execute(
        "UPDATE node_serial SET current = next, next = NULL WHERE node_id = ?1 AND next = ?2",
        params![node_id, serial],
    )?;
    Ok(())
}
