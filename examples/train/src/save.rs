//! Trained models in a safetensors file.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Tensor};

use crate::Outcome;
use crate::data::Log;
use crate::model::Model;
use crate::options::Options;
use crate::training::Data;

/// The most bytes of a file: it may be kept in a repository.
const MOST: usize = 4_000_000;
/// What `rank` asks for.
const FORMAT: &str = "longseq-train-1";

/// Checks before anything is trained that a file of the systems' models is small enough.
///
/// # Errors
/// If it would be larger than 4 MB.
pub(crate) fn check_size(path: &Path, data: &Data, options: &Options) -> Outcome<()> {
    let systems = options.systems();
    let bytes = systems.iter().map(|&system| {
        let model = Model::new(system, data.sizes, data.contents.as_ref(), options.seed)?;
        Ok(tensors(&model)?.iter().map(size).sum())
    });
    let bytes = bytes.collect::<Outcome<Vec<usize>>>()?.iter().sum::<usize>();
    if bytes > MOST {
        let each = bytes / systems.len().max(1);
        return Err(format!(
            "{}: {} systems need about {bytes} bytes, and a file has at most {MOST}: name fewer in --systems (one takes about {each} bytes), or \
             set a smaller --width",
            path.display(),
            systems.len()
        )
        .into());
    }
    Ok(())
}

/// About how many bytes a weight takes.
fn size((name, tensor): &(String, Tensor)) -> usize {
    name.len() + 100 + tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// The weights of a model as a file has them.
fn tensors(model: &Model) -> Outcome<Vec<(String, Tensor)>> {
    let is_table = |name: &str| model.tables().iter().any(|table| table.name() == name);
    let named = model.weights.named().into_iter().map(|(name, var)| {
        let dtype = if is_table(&name) { DType::F16 } else { DType::F32 };
        let name = format!("{}.{name}", model.system.key());
        Ok((name, var.as_detached_tensor().to_dtype(dtype)?))
    });
    named.collect()
}

/// Writes models: each weight as `system.name`, tables as `f16`, others as `f32`; in the header, what they were trained on and with.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn save(path: &Path, models: &[&Model], log: &Log, options: &Options) -> Outcome<()> {
    let weights = models.iter().map(|model| tensors(model)).collect::<Outcome<Vec<_>>>()?;
    let systems: Vec<&str> = models.iter().map(|model| model.system.key()).collect();
    let header = [
        ("format", FORMAT.to_owned()),
        ("systems", systems.join(",")),
        // Items are numbered in the order in which the log names them.
        ("log", log.name.clone()),
        ("fingerprint", format!("{:016x}", log.fingerprint())),
        ("events", log.events().to_string()),
        ("items", log.items.to_string()),
        ("width", options.width.to_string()),
        ("history", options.history.to_string()),
        ("seed", options.seed.to_string()),
        ("min_events", options.min_events.to_string()),
        ("epochs", options.epochs().to_string()),
        ("patience", options.patience.to_string()),
        ("samples", options.samples().to_string()),
        ("batch", options.batch.to_string()),
        ("negatives", options.negatives.to_string()),
        ("negatives_from", options.negatives_from.key().to_owned()),
        ("rate", options.rate.to_string()),
        ("table_rate", options.table_rate.to_string()),
        ("table_decay", options.table_decay.to_string()),
    ];
    let header: HashMap<String, String> =
        header.into_iter().map(|(key, value)| (key.into(), value)).collect();
    safetensors::tensor::serialize_to_file(weights.into_iter().flatten(), Some(header), path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Engine;
    use crate::samples::Sample;
    use crate::systems::{Sizes, System};
    use candle_core::Device;
    use clap::Parser;

    fn log(items: usize) -> Log {
        Log { name: "a log".into(), users: vec![vec![0, 1]], items }
    }

    #[test]
    fn a_saved_model_has_the_same_scores() {
        let sizes = Sizes { items: 50, width: 8, history: 10 };
        let models = [System::Dare, System::Tin].map(|system| Model::new(system, sizes, None, 7).unwrap());
        models.iter().for_each(|model| model.round_tables().unwrap());
        let path = std::env::temp_dir().join(format!("longseq-train-{}.safetensors", std::process::id()));
        let options = Options::parse_from(["train", "--width", "8"]);
        save(&path, &[&models[0], &models[1]], &log(50), &options).unwrap();

        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let header = header.metadata().clone().unwrap();
        assert_eq!((header["systems"].as_str(), header["items"].as_str()), ("dare,tin", "50"));
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tensors["dare.interest.attention"].dtype(), DType::F16);

        let mut sample = Sample::default();
        sample.push(&[1, 2, 3, 4], &[(5, 1.0), (6, 0.0)]);
        for model in &models {
            let other = Model::new(model.system, sizes, None, 8).unwrap();
            let prefix = format!("{}.", model.system.key());
            for (name, values) in &tensors {
                if let Some(name) = name.strip_prefix(&prefix) {
                    other.weights.var(name).unwrap().set(&values.to_dtype(DType::F32).unwrap()).unwrap();
                }
            }
            let scores =
                |model: &Model| model.forward(&sample, Engine::Longseq).unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(scores(model), scores(&other));
        }
    }

    #[test]
    fn a_file_that_would_be_too_large_is_refused() {
        let log = Log { name: "a log".into(), users: vec![(0..9).collect()], items: 60_000 };
        let options =
            Options::parse_from(["train", "--width", "40", "--systems", "mean", "--negatives-from", "all"]);
        let data = Data::new(&log, &options).unwrap();
        let error = check_size(Path::new("model.safetensors"), &data, &options).unwrap_err().to_string();
        assert!(error.contains("at most 4000000") && error.contains("--systems"), "{error}");
        let options =
            Options::parse_from(["train", "--width", "8", "--systems", "mean", "--negatives-from", "all"]);
        check_size(Path::new("model.safetensors"), &Data::new(&log, &options).unwrap(), &options).unwrap();
    }
}
