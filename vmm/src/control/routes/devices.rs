//! The devices, and what of them may be changed while they run.

use axum::Json;
use axum::extract::State;
use pincushion_devices::device::{SharedDevice, VirtioDevice};
use pincushion_devices::toml_error::nearest;

use crate::control::api::Api;
use crate::control::error::{ApiError, Body, Named, Refusal};
use crate::control::model::{Device, DeviceChange, Devices, Setting};
use crate::lock::lock;

/// Longest hold of a device, an hour.
const MAX_HOLD_MS: u64 = 3_600_000;

/// The devices of the machine
#[utoipa::path(
    get, path = "/v1/devices", tag = "devices",
    responses((status = 200, description = "In the order of the configuration", body = Devices))
)]
pub(in crate::control) async fn list(State(api): State<Api>) -> Result<Json<Devices>, ApiError> {
    let list = |api: &Api| {
        let devices = api
            .devices()
            .iter()
            .map(|device| describe(api, &*lock(device)));
        Ok(Json(Devices {
            devices: devices.collect(),
        }))
    };
    api.aside(list).await
}

/// One device
#[utoipa::path(
    get, path = "/v1/devices/{name}", tag = "devices",
    params(("name" = String, Path, description = "Its name on the command line")),
    responses(
        (status = 200, description = "The device", body = Device),
        (status = 400, description = "The name is no text", body = Refusal),
        (status = 404, description = "There is no such device", body = Refusal),
    )
)]
pub(in crate::control) async fn get(
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<Device>, ApiError> {
    api.aside(move |api| Ok(Json(describe(api, &*lock(find(api, &name)?)))))
        .await
}

/// Changes a device while it runs
///
/// A hold is one more rule behind those of the plan: requests that were popped before the change are not touched, and what
/// is parked keeps its wait.
#[utoipa::path(
    patch, path = "/v1/devices/{name}", tag = "devices", request_body = DeviceChange,
    params(("name" = String, Path, description = "Its name on the command line")),
    responses(
        (status = 200, description = "The device as it is now", body = Device),
        (status = 400, description = "A value or a setting is not possible", body = Refusal),
        (status = 404, description = "There is no such device", body = Refusal),
        (status = 413, description = "The body is too long", body = Refusal),
        (status = 415, description = "The body is not JSON", body = Refusal),
    )
)]
pub(in crate::control) async fn change(
    State(api): State<Api>,
    Named(name): Named<String>,
    Body(change): Body<DeviceChange>,
) -> Result<Json<Device>, ApiError> {
    api.aside(move |api| apply(api, &name, &change).map(Json))
        .await
}

fn apply(api: &Api, name: &str, change: &DeviceChange) -> Result<Device, ApiError> {
    let device = find(api, name)?;
    let mut device = lock(device);
    if let Some(ms) = change.hold_ms.filter(|ms| *ms > MAX_HOLD_MS) {
        return Err(ApiError::bad_request(format!(
            "hold_ms {ms}: a device holds for at most {MAX_HOLD_MS} ms"
        )));
    }
    let before = device.settings();
    check_settings(&before, change)?;
    for (index, (setting, value)) in change.settings.iter().enumerate() {
        if let Err(error) = device.change_setting(setting, *value) {
            // All or nothing: those before are put back.
            for done in change.settings.keys().take(index) {
                let old = before.iter().find(|old| old.name == *done);
                let restored = old.map_or(Ok(()), |old| device.change_setting(done, old.value));
                if let Err(error) = restored {
                    log::warn!("{name}: {done} stays changed: {error}");
                }
            }
            return Err(ApiError::bad_request(format!("{setting} {value}: {error}")));
        }
    }
    if let Some(ms) = change.hold_ms {
        let set = api.desk().set_hold(name, ms);
        set.map_err(|error| ApiError::bad_request(error.to_string()))?;
    }
    let words = serde_json::to_string(change).unwrap_or_default();
    api.log("device", format!("{name} {words}"));
    Ok(describe(api, &*device))
}

fn check_settings(
    known: &[pincushion_devices::device::Setting],
    change: &DeviceChange,
) -> Result<(), ApiError> {
    let names = || known.iter().map(|setting| setting.name);
    for name in change.settings.keys() {
        if !names().any(|known| known == name) {
            let known: Vec<_> = names().collect();
            let has = match known.as_slice() {
                [] => "it has none".to_owned(),
                known => format!("it has {}", known.join(", ")),
            };
            return Err(ApiError::bad_request(format!(
                "the device has no setting `{name}`; {has}"
            )));
        }
    }
    Ok(())
}

fn find<'a>(api: &'a Api, name: &str) -> Result<&'a SharedDevice, ApiError> {
    let found = api
        .devices()
        .iter()
        .find(|device| lock(device).name() == name);
    found.ok_or_else(|| {
        let names: Vec<String> = api
            .devices()
            .iter()
            .map(|device| lock(device).name().to_owned())
            .collect();
        let near = nearest(name, names.iter().map(String::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        ApiError::not_found(format!("there is no device `{name}`{hint}"))
    })
}

fn describe(api: &Api, device: &dyn VirtioDevice) -> Device {
    let setting = |setting: pincushion_devices::device::Setting| Setting {
        name: setting.name.to_owned(),
        value: setting.value,
        unit: setting.unit.to_owned(),
    };
    Device {
        name: device.name().to_owned(),
        virtio_id: device.device_type(),
        queues: u16::try_from(device.queue_max_sizes().len()).unwrap_or(u16::MAX),
        hold_ms: api.desk().hold_ms(device.name()),
        settings: device.settings().into_iter().map(setting).collect(),
    }
}
