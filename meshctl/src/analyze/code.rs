//! Istio's codes (`pkg/config/analysis/msg/messages.yaml`) that can arise from the kinds that pilot watches.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Level {
    /// Worth knowing.
    #[value(alias = "info")]
    Info,
    /// Probably not what was meant.
    #[value(alias = "warning")]
    Warning,
    /// Wrong.
    #[value(alias = "error")]
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Declares the codes: number, name, level.
macro_rules! codes {
    ($($number:literal $name:ident $level:ident),* $(,)?) => {
        /// A code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $(#[doc = concat!("`IST", $number, "`")] $name),* }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it is written: `IST0101`.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => concat!("IST", $number)),* }
            }

            /// Its level.
            pub fn level(self) -> Level {
                match self { $(Self::$name => Level::$level),* }
            }
        }
    };
}

codes! {
    "0101" ReferencedResourceNotFound Error,
    "0102" NamespaceNotInjected Info,
    "0103" PodMissingProxy Warning,
    "0106" SchemaValidationError Error,
    "0107" MisplacedAnnotation Warning,
    "0108" UnknownAnnotation Warning,
    "0109" ConflictingMeshGatewayVirtualServiceHosts Error,
    "0110" ConflictingSidecarWorkloadSelectors Error,
    "0111" MultipleSidecarsWithoutWorkloadSelectors Error,
    "0112" VirtualServiceDestinationPortSelectorRequired Error,
    "0116" DeploymentAssociatedToMultipleServices Warning,
    "0118" PortNameIsNotUnderNamingConvention Info,
    "0123" NamespaceMultipleInjectionLabels Warning,
    "0125" InvalidAnnotation Warning,
    "0127" NoMatchingWorkloadsFound Warning,
    "0128" NoServerCertificateVerificationDestinationLevel Warning,
    "0129" NoServerCertificateVerificationPortLevel Warning,
    "0130" VirtualServiceUnreachableRule Warning,
    "0131" VirtualServiceIneffectiveMatch Info,
    "0132" VirtualServiceHostNotFoundInGateway Warning,
    "0133" SchemaWarning Warning,
    "0134" ServiceEntryAddressesRequired Warning,
    "0135" DeprecatedAnnotation Info,
    "0137" DeploymentConflictingPorts Warning,
    "0138" GatewayDuplicateCertificate Warning,
    "0144" InvalidApplicationUid Warning,
    "0145" ConflictingGateways Error,
    "0149" JwtClaimBasedRoutingWithoutRequestAuthN Error,
    "0150" ExternalNameServiceTypeInvalidPortName Warning,
    "0157" InvalidTelemetryProvider Warning,
    "0159" ConflictingTelemetryWorkloadSelectors Error,
    "0160" MultipleTelemetriesWithoutWorkloadSelectors Error,
    "0161" InvalidGatewayCredential Error,
    "0162" GatewayPortNotDefinedOnService Warning,
    "0173" DestinationRuleSubsetNotSelectPods Error,
    "0174" UnknownDestinationRuleHost Warning,
    "0177" ConflictingServiceEntryProtocol Warning,
}
