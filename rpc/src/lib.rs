//! # gRPC

#[allow(missing_docs, clippy::all)]
pub mod wire {
    tonic::include_proto!("meridian.v1");
}
