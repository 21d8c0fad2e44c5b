//! Latency of one request on the reference and on every available device.

use longseq::prelude::*;

use longseq::Cpu;

use crate::Outcome;
use crate::check::sample;
use crate::embeddings::Tables;
use crate::method::Method;
use crate::options::Options;
use crate::progress::Progress;
use crate::protocol::{Batch, Request};
use crate::ranker::Ranker;
use crate::report::{counted, figures, note};

/// Latency of each method, in milliseconds.
type Latencies = [f64; Method::UNTRAINED.len()];

/// The table and its note.
pub(crate) fn table(
    tables: &Tables,
    requests: &[Request],
    options: &Options,
    progress: &Progress,
) -> Outcome<String> {
    let request = sample(requests, 1, options.seed).requests;
    let Some(Request { history, candidates }) = request.first() else { return Ok(String::new()) };
    progress.stage("The same request on every device", 3 * Method::UNTRAINED.len());
    let cpu = Cpu::new();
    let ranker = Ranker::new(&cpu, tables, options.top_k, options.seed)?;
    let batch = Batch::new(&request)?;
    let mut reference: Latencies = [0.0; Method::UNTRAINED.len()];
    for (time, &method) in reference.iter_mut().zip(&Method::UNTRAINED) {
        *time = ranker.check(method, &batch)?.reference.as_secs_f64() * 1e3;
    }
    let mut rows = vec![("reference, f64, one thread".to_owned(), reference)];
    rows.push((cpu.device(), latencies(&ranker, &request, options, progress)?));
    #[cfg(feature = "wgpu")]
    if let Ok(gpu) = longseq::Wgpu::new() {
        let ranker = Ranker::new(&gpu, tables, options.top_k, options.seed)?;
        rows.push((gpu.device(), latencies(&ranker, &request, options, progress)?));
    }
    #[cfg(feature = "cuda")]
    if let Ok(gpu) = longseq::Cuda::new(0) {
        let ranker = Ranker::new(&gpu, tables, options.top_k, options.seed)?;
        rows.push((gpu.device(), latencies(&ranker, &request, options, progress)?));
    }
    let titles = Method::UNTRAINED.map(|method| ranker.name(method));
    let mut cells =
        vec![std::iter::once("latency of one request, ms".to_owned()).chain(titles).collect::<Vec<_>>()];
    cells.extend(
        rows.into_iter().map(|(device, times)| std::iter::once(device).chain(times.map(figures)).collect()),
    );
    let about = note(&format!(
        "One request with {} and {}: the longest history whose reference takes about a second. The reference's time covers its operations only; a device's time covers the \
         whole request, from item ids on the host to scores on the host, and is a median over several runs.",
        counted(history.len(), "behaviour"),
        counted(candidates.len(), "candidate"),
    ));
    Ok(format!("{}\n\n{about}\n", crate::report::table(&cells)))
}

fn latencies<B: Backend>(
    ranker: &Ranker<'_, B>,
    request: &[Request],
    options: &Options,
    progress: &Progress,
) -> Outcome<Latencies> {
    let mut times = [0.0; Method::UNTRAINED.len()];
    for (time, &method) in times.iter_mut().zip(&Method::UNTRAINED) {
        // The first run compiles kernels and warms up caches.
        let batch = Batch::new(request)?;
        let tables = ranker.bucket_tables(&batch)?;
        ranker.scores(method, &batch, &tables)?;
        *time = ranker.single_latency(method, request, options.sweep_budget(), progress)?.as_secs_f64() * 1e3;
    }
    Ok(times)
}
