//! The prose of the report: what was run, what the columns mean, and what the figures do not show.

use longseq::prelude::*;

use crate::check::Sample;
use crate::compare::Results;
use crate::data::Log;
use crate::embeddings::Embeddings;
use crate::method::{Method, RECENT};
use crate::metrics::CUTOFF;
use crate::options::Options;
use crate::plot::Series;
use crate::protocol::{Request, Split};
use crate::ranker::Ranker;
use crate::report::{count, counted, figures, note, table};
use crate::trained::Model;

/// Data, requests and device, printed before the work starts.
pub(crate) fn header(device: &str, options: &Options, log: &Log, split: &Split) -> String {
    let requests = &split.requests;
    let mut lengths: Vec<usize> = requests.iter().map(|request| request.history.len()).collect();
    lengths.sort_unstable();
    let skipped = match split.without_negatives {
        0 => String::new(),
        users => format!(" ({} skipped: no item left as a negative)", counted(users, "user")),
    };
    let candidates = requests.iter().map(|request| request.candidates.len()).max().unwrap_or(0);
    format!(
        "longseq {version}: ranking each user's held-out last item from the user's history\n\n\
         Data      {name}\n          {users}, {items}, {events}; the longest history has {longest} behaviours\n\
         Requests  {requests} from {eligible} with at least {least} events{skipped}; histories of {shortest} to \
         {most} behaviours, median {median};\n          \
         {candidates} candidates each: the held-out item and uniformly sampled negatives (seed {seed})\n\
         Device    {device} (--device {requested})\n",
        version = env!("CARGO_PKG_VERSION"),
        name = log.name,
        users = counted(log.users.len(), "user"),
        items = counted(log.items, "item"),
        events = counted(log.events(), "event"),
        longest = count(log.users.iter().map(Vec::len).max().unwrap_or(0)),
        requests = count(requests.len()),
        eligible = counted(split.eligible, "user"),
        least = options.min_events,
        shortest = count(lengths.first().copied().unwrap_or(0)),
        most = count(lengths.last().copied().unwrap_or(0)),
        median = count(lengths.get(lengths.len() / 2).copied().unwrap_or(0)),
        seed = options.seed,
        requested = options.device,
    )
}

/// The notes below the table of methods; the first results are those of what is not trained.
pub(crate) fn notes<B: Backend>(
    ranker: &Ranker<'_, B>,
    embeddings: &Embeddings,
    models: &[Model],
    options: &Options,
    split: &Split,
    results: &[Results],
) -> String {
    let mut notes = vec![
        quality(&split.requests),
        untrained(embeddings),
        trained(models),
        "Caveats: some known events of other users are later than a user's held-out event. Uniform negatives are \
         mostly unpopular items, which favours any method that follows popularity (see the first row)."
            .into(),
        times(options, &split.requests),
        bucket_tables(ranker, &results[0], split.requests.len()),
        errors(results),
    ];
    notes.extend(exceptions(embeddings, options, &split.requests));
    let notes: Vec<String> = notes.iter().map(|text| note(text)).collect();
    format!("\n{}\n", notes.join("\n"))
}

fn quality(requests: &[Request]) -> String {
    let at_random = |request: &Request| (CUTOFF / request.candidates.len() as f64).min(1.0);
    let at_random = requests.iter().map(at_random).sum::<f64>() / requests.len().max(1) as f64;
    format!(
        "Quality: a random order has HR@10 {at_random:.3} and AUC 0.5. Every method that is not trained scores a \
         candidate by the dot product of its interest vector and the candidate's embedding; ties count half."
    )
}

fn untrained(embeddings: &Embeddings) -> String {
    let (width, narrow) = (embeddings.tables.width, embeddings.tables.attention_width);
    format!(
        "Embeddings: truncated SVD of the 0/1 user-item matrix without the held-out events; {width} factors explain \
         {:.0} % of its sum of squares. An item's embedding is its row of V·Σ, scaled to length √{width}; the \
         attention embeddings of the decoupled search are the first {narrow} columns of V·Σ, scaled to length \
         √{narrow}. Attention scores are scaled by 1/√width. Nothing is trained or tuned for these rows: they compare \
         ways to pool a history, not the published models.",
        100.0 * embeddings.explained,
    )
}

fn trained(models: &[Model]) -> String {
    let Some(first) = models.first() else {
        return "No trained models: `cargo run --release --manifest-path examples/train/Cargo.toml -- --systems \
                target-attention,din,sdim,dare --save FILE` trains them (with the same --events FILE as here), --model FILE \
                reads them."
            .into();
    };
    format!(
        "Trained: click models of examples/train, each with item embeddings of its own ({} wide), which pool the \
         last {} behaviours (the search keeps them all, as in training; at most 4096) and score candidates with a tower on the \
         host. Training has not seen the last event of any user in this table.",
        first.tables.width,
        count(first.newest),
    )
}

fn times(options: &Options, requests: &[Request]) -> String {
    format!(
        "Time: from item ids on the host to scores on the host, including uploads, embedding look-up and download. \
         ms/request: one request at a time, the median over {} of each one's median. batched: {} in as few jagged \
         calls as the batch limits allow, divided by their number. behaviours/s: behaviours read (at most {RECENT} \
         per user for the mean), batched.",
        counted(requests.len().min(options.samples().0), "request"),
        counted(requests.len(), "request"),
    )
}

fn bucket_tables<B: Backend>(ranker: &Ranker<'_, B>, results: &Results, requests: usize) -> String {
    let sdim = &ranker.sdim;
    format!(
        "SDIM's bucket tables ({} groups of {} bits; untrained {} KiB per user) are built ahead of requests, in {} ms per user \
         (batched), which its times do not include.",
        sdim.groups,
        sdim.bits,
        sdim.groups * sdim.buckets() * sdim.width * size_of::<f32>() / 1024,
        figures(results.encode.as_secs_f64() * 1e3 / requests.max(1) as f64),
    )
}

fn errors(results: &[Results]) -> String {
    let choices = |method: Method| {
        let of_method = results.iter().flat_map(|results| &results.methods).filter(|of| of.method == method);
        let sums = of_method.fold([0, 0], |[differing, total], of| {
            [differing + of.check.choices.differing, total + of.check.choices.total]
        });
        format!("{} of {}", count(sums[0]), count(sums[1]))
    };
    let trained = match results.len() {
        0 | 1 => "",
        _ => " (trained models: with its last behaviours, and without the tower)",
    };
    format!(
        "Error: the largest difference from the f64 reference on {}{trained}, relative to the largest component of the \
         reference's interest vector (for the search, also of its scores). Choices within rounding error may differ: \
         {} signatures and {} kept positions differ from the reference's; the error is measured given the device's \
         choices. The last column is the reference's time (one thread, warm) divided by the device's on that sample.",
        checked(&results[0].checked),
        choices(Method::Sdim),
        choices(Method::Decoupled),
    )
}

/// Which requests are compared with the reference.
fn checked(sample: &Sample) -> String {
    let Some(longest) = sample.requests.first() else {
        return "no request, since every history is too long for it".into();
    };
    let candidates = match longest.candidates.len() {
        all if all == sample.candidates_of_longest => counted(all, "candidate"),
        some => format!("{} of its {}", count(some), counted(sample.candidates_of_longest, "candidate")),
    };
    let others = match sample.requests.len() - 1 {
        0 => String::new(),
        others => format!(" and {} at random", counted(others, "other")),
    };
    let left_out = match sample.too_long {
        0 => String::new(),
        requests => {
            format!(" ({} left out: too long for the reference)", counted(requests, "longer history"))
        }
    };
    let longest = counted(longest.history.len(), "behaviour");
    format!("the longest history ({longest}, {candidates}){others}{left_out}")
}

/// Notes about requests that cannot be ranked as the others are.
fn exceptions(embeddings: &Embeddings, options: &Options, requests: &[Request]) -> Vec<String> {
    let mut notes = Vec::new();
    let is_unknown = |item: u32| embeddings.popularity[item as usize] == 0;
    let unknown = requests.iter().filter(|request| is_unknown(request.candidates[0])).count();
    if unknown > 0 {
        notes.push(format!(
            "Held-out items without known events, which have no embedding and cannot be ranked well: {}.",
            count(unknown)
        ));
    }
    let repeated = requests.iter().filter(|request| request.history.contains(&request.candidates[0])).count();
    if repeated > 0 {
        notes.push(format!("Held-out items that are also in the user's history: {}.", count(repeated)));
    }
    let fewest = requests.iter().map(|request| request.candidates.len()).min().unwrap_or(0);
    if fewest <= options.candidates {
        notes.push(format!(
            "Some users have fewer negatives than --candidates asks for: the shortest list has {}.",
            counted(fewest, "candidate")
        ));
    }
    notes
}

/// The table of latency against history length.
pub(crate) fn latency(series: &[Series], lengths: &[usize], requests: &[Request]) -> String {
    let titles = lengths.iter().map(|&length| count(length));
    let mut rows =
        vec![std::iter::once("median ms, by behaviours".to_string()).chain(titles).collect::<Vec<_>>()];
    for series in series {
        let times = series.points.iter().map(|point| figures(point.1));
        rows.push(std::iter::once(series.name.clone()).chain(times).collect());
    }
    let behaviours: usize = requests.iter().map(|request| request.history.len()).sum();
    let repeated = if lengths.last().is_some_and(|&longest| longest > behaviours) {
        format!(" (repeated beyond {} behaviours)", count(behaviours))
    } else {
        String::new()
    };
    let about = format!(
        "One request with {}; its history concatenates the histories of real users{repeated}, cut to length.",
        counted(requests.first().map_or(0, |request| request.candidates.len()), "candidate")
    );
    format!("{}\n\n{}", table(&rows), note(&about))
}
