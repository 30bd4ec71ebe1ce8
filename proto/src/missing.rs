//! Messages that `envoy-types` lacks, as small prost structs with the source of their field numbers.

use crate::envoy::wkt::Struct;

/// `udpa.type.v1.TypedStruct`: type_url = 1, value = 2 (cncf/xds: udpa/type/v1/typed_struct.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypedStruct {
    /// Type URL of the message that `value` stands for.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message as a JSON-like struct.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

impl prost::Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "udpa.type.v1";
}
