//! Putting the S3 layer together, once.

use std::sync::Arc;
use std::time::Duration;

use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use shardgate_catalog::Catalog;

use super::access::{Gate, Keys};
use super::body::BodyPace;
use super::contact::Contact;
use super::front::{MAX_DOCUMENT_BYTES, S3Front, Services};
use super::host::BaseNames;
use super::owner::Owners;
use super::repair::Repair;
use super::service::Operations;
use super::signature_v2::SignatureV2;
use super::store::ObjectStore;
use crate::auth::CredentialStore;
use crate::seam::Clock;

/// Settings of S3, as plain data.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// The only region; signatures for another are refused.
    pub region: String,
    /// Base names of virtual hosts; none: path style only.
    pub host_names: Vec<String>,
    /// Whether version 2 signatures are taken.
    pub signature_v2: bool,
    /// How slowly a request's body may come.
    pub body_pace: BodyPace,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            host_names: Vec::new(),
            signature_v2: true,
            body_pace: BodyPace {
                idle: Duration::from_secs(60),
                least_rate: 1024,
            },
        }
    }
}

/// What S3 stands on.
#[derive(Clone)]
pub struct S3Parts {
    /// Buckets and listings.
    pub catalog: Catalog,
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Whom things belong to.
    pub owners: Owners,
    /// Identities.
    pub credentials: Arc<dyn CredentialStore>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Whether anything may be answered.
    pub contact: Arc<dyn Contact>,
}

/// One signed chunk is gathered before it is passed on.
const MAX_CHUNK_BYTES: usize = 16 << 20;
const MAX_FORM_BYTES: usize = 1 << 20;
const MAX_FORM_FIELDS: usize = 100;
/// A form is signed when its page is made, and sent when somebody has filled
/// it in. Its policy says until when; AWS takes it for at most so long.
const MAX_FORM_AGE_SECONDS: u32 = 7 * 24 * 3600;

/// Builds the S3 layer.
pub fn build_s3(settings: &S3Settings, parts: S3Parts) -> S3Front {
    let operations = Operations {
        catalog: parts.catalog,
        objects: parts.objects,
        clock: parts.clock,
        region: settings.region.clone(),
        names: BaseNames::new(&settings.host_names),
        owners: parts.owners,
    };
    let shared = (&operations, &parts.credentials);
    let verified = service(config(settings), shared, None);
    let signature_v2 = settings.signature_v2.then(|| SignatureV2 {
        verified: verified.clone(),
        credentials: Arc::clone(&parts.credentials),
        names: operations.names.clone(),
        clock: Arc::clone(&operations.clock),
    });
    let repair = Repair {
        verified,
        credentials: Arc::clone(&parts.credentials),
    };
    let mut for_forms = config(settings);
    for_forms.presigned_url_max_skew_time_secs = MAX_FORM_AGE_SECONDS;
    let forms = service(for_forms, shared, Some(Repair::clone(&repair)));
    let services = Services {
        clients: service(config(settings), shared, Some(repair)),
        forms,
        signature_v2,
    };
    S3Front::new(
        services,
        parts.contact,
        &settings.region,
        settings.body_pace,
    )
}

/// The service of clients, or (without `repair`) that of verified requests.
fn service(
    config: S3Config,
    (operations, credentials): (&Operations, &Arc<dyn CredentialStore>),
    repair: Option<Repair>,
) -> S3Service {
    let mut builder = S3ServiceBuilder::new(operations.clone());
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.set_host(operations.names.clone());
    builder.set_auth(Keys(Arc::clone(credentials)));
    match repair {
        Some(repair) => {
            builder.set_access(Gate::new(Arc::clone(credentials)));
            builder.set_route(repair);
        }
        None => builder.set_access(Gate::of_verified(Arc::clone(credentials))),
    }
    builder.build()
}

fn config(settings: &S3Settings) -> S3Config {
    let mut config = S3Config::default();
    config.xml_max_body_size = MAX_DOCUMENT_BYTES;
    config.aws_chunked_stream_max_chunk_size = MAX_CHUNK_BYTES;
    config.form_max_field_size = MAX_FORM_BYTES;
    config.form_max_fields_size = MAX_FORM_BYTES;
    config.form_max_parts = MAX_FORM_FIELDS;
    // Without it every region would be taken.
    let region = settings.region.parse();
    config.expected_region = Some(region.expect("the region was checked with the settings"));
    config.sig_v4_allowed_services = vec!["s3".to_owned()];
    config.enable_sig_v2 = settings.signature_v2;
    // `x-id` is a hint of SDKs; an unknown one must not fail a request.
    config.operation_id_routing = false;
    config
}
