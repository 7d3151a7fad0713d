//! Between what the checker speaks about and what the service is sent.

use bytes::Bytes;
use hovercraft_apps::kv::{Request, Response};
use simulator::linearizability::kv::{KeyOp, Op, Ret};

/// The request for an operation.
pub(crate) fn encode(op: &Op) -> Bytes {
    let request = match op {
        Op::Key { key, op } => {
            let key = key.clone();
            match op {
                KeyOp::Get | KeyOp::Exists => Request::Get { key },
                KeyOp::Set(value) => Request::Set { key, value: value.clone() },
                KeyOp::Del => Request::Del { key },
                KeyOp::Cas { expect, new } => Request::Cas { key, expect: expect.clone(), new: new.clone() },
                KeyOp::Incr(delta) => Request::Incr { key, delta: *delta },
            }
        }
        Op::Scan { start, end, limit } => Request::Scan { start: start.clone(), end: end.clone(), limit: *limit },
    };
    request.encode()
}

/// What the answer to an operation says.
pub(crate) fn decode(op: &Op, body: &Bytes) -> Result<Ret, String> {
    let response = Response::decode(body).map_err(|error| error.to_string())?;
    let exists = matches!(op, Op::Key { op: KeyOp::Exists, .. });
    Ok(match response {
        Response::Value(value) if exists => Ret::Exists(value.is_some()),
        Response::Value(value) => Ret::Value(value),
        Response::Stored => Ret::Stored,
        Response::Deleted(existed) => Ret::Deleted(existed),
        Response::Swapped => Ret::Swapped,
        Response::Mismatch(found) => Ret::Mismatch(found),
        Response::Number(sum) => Ret::Number(sum),
        other => return Err(format!("{other:?}")),
    })
}
