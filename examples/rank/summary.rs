//! The report's words: what was run, what the columns mean, and what the figures cannot show.

use longseq::prelude::*;

use crate::compare::Results;
use crate::data::Log;
use crate::metrics::PLACES;
use crate::options::Options;
use crate::plot::Series;
use crate::protocol::{Request, Split};
use crate::ranker::{Method, RECENT, Ranker};
use crate::report::{count, counted, figures, note, table};

/// What is about to run.
pub(crate) fn header(device: &str, options: &Options, log: &Log, split: &Split) -> String {
    let requests = &split.requests;
    let mut lengths: Vec<usize> = requests.iter().map(|request| request.history.len()).collect();
    lengths.sort_unstable();
    let left_out = match split.without_negatives {
        0 => String::new(),
        users => format!(" ({} met every item and had to be left out)", counted(users, "user")),
    };
    let at_most = requests.iter().map(|request| request.candidates.len()).max().unwrap_or(0);
    format!(
        "longseq {version}: ranking each user's held-out last item by what the history says\n\n\
         Data      {name}\n          {users}, {items}, {events}; longest history {longest} behaviours\n\
         Requests  {asked} of {eligible} with at least {least} events{left_out}; histories of {shortest} to \
         {most} behaviours, median {middle};\n          \
         {at_most} candidates each: the held-out item and negatives the user never met, drawn uniformly (seed {seed})\n\
         Device    {device} (--device {asked_for})\n",
        version = env!("CARGO_PKG_VERSION"),
        name = log.name,
        users = counted(log.users.len(), "user"),
        items = counted(log.items, "item"),
        events = counted(log.events(), "event"),
        longest = count(log.users.iter().map(Vec::len).max().unwrap_or(0)),
        asked = count(requests.len()),
        eligible = counted(split.eligible, "user"),
        least = options.min_events,
        shortest = count(lengths.first().copied().unwrap_or(0)),
        most = count(lengths.last().copied().unwrap_or(0)),
        middle = count(lengths.get(lengths.len() / 2).copied().unwrap_or(0)),
        seed = options.seed,
        asked_for = options.device,
    )
}

/// What the table of methods means.
pub(crate) fn notes<B: Backend>(
    ranker: &Ranker<'_, B>,
    options: &Options,
    split: &Split,
    results: &Results,
) -> String {
    let requests = &split.requests;
    let (width, narrow) = (ranker.embeddings.width, ranker.embeddings.attention_width);
    let met_before =
        requests.iter().filter(|request| request.history.contains(&request.candidates[0])).count();
    let unknown = |&&item: &&u32| ranker.embeddings.popularity[item as usize] == 0;
    let held_out_unknown = requests.iter().map(|request| &request.candidates[0]).filter(unknown).count();
    let fewest = requests.iter().map(|request| request.candidates.len()).min().unwrap_or(0);
    let by_lot = |request: &Request| (PLACES / request.candidates.len() as f64).min(1.0);
    let by_lot = requests.iter().map(by_lot).sum::<f64>() / requests.len().max(1) as f64;
    let choices = |method: Method| {
        let check = results.methods.iter().find(|result| result.method == method).map(|result| &result.check);
        let (differing, of) = check.map_or((0, 0), |check| (check.choices.differing, check.choices.of));
        format!("{} of {}", count(differing), count(of))
    };
    let (signatures, positions) = (choices(Method::Sdim), choices(Method::Decoupled));
    let mut notes = vec![
        format!(
            "Quality: a draw by lot gets HR@10 {by_lot:.3} and AUC 0.5. Every method scores a candidate by the dot \
             product of its interest with the candidate's embedding; equal scores count half."
        ),
        format!(
            "Embeddings: truncated SVD of the 0/1 matrix of who met what, held-out events left out: {} factors hold \
             {:.0} % of its sum of squares. An item is its row of V·Σ, scaled to length √{}; the attention embeddings \
             of the decoupled search are the first {} columns of the same V·Σ, scaled to length √{}. Attention scales \
             by 1/√width. Nothing is trained or tuned, so this compares ways to pool, not the published models.",
            width, 100.0 * ranker.embeddings.held, width, narrow, narrow,
        ),
        "Caveats: other users' known events may be later than a user's held-out one; uniform negatives are mostly \
         unpopular items, which flatters whatever follows popularity (hence the first row)."
            .into(),
        format!(
            "Time: from item ids on the host to scores on the host, upload, look-up of embeddings and download \
             included. ms/request: one request at a time, the median over {} of each one's median; batched: all {} in \
             as few jagged calls as memory allows, the time divided by their number. Behaviours/s counts the behaviours that shape the answer (at \
             most {RECENT} a user for the mean), batched.",
            counted(requests.len().min(options.samples().0), "request"), counted(requests.len(), "request"),
        ),
        format!(
            "SDIM's bucket tables ({} groups of {} bits, {} KiB a user) are built before any request comes: {} ms a \
             user, all users together, not part of its times above.",
            ranker.sdim.groups, ranker.sdim.bits,
            ranker.sdim.groups * ranker.sdim.buckets() * ranker.sdim.width * size_of::<f32>() / 1024,
            figures(results.encode.as_secs_f64() * 1e3 / requests.len().max(1) as f64),
        ),
        format!(
            "Error: on {}, the longest history first, the largest difference from the f64 reference, relative to the \
             largest component of the reference's interest (for the search also of its scores). Choices within \
             rounding may fall either way: {signatures} signatures and {positions} kept positions differ from the \
             reference's, and the error is measured from the device's own. The last column is the plain reference's \
             time over the device's on that sample.",
            counted(results.checked, "request"),
        ),
    ];
    if held_out_unknown > 0 {
        notes.push(format!(
            "Held-out items in nobody's known events, which have no embedding and cannot be ranked well: {}.",
            count(held_out_unknown)
        ));
    }
    if met_before > 0 {
        notes.push(format!("Held-out items that the user had met before: {}.", count(met_before)));
    }
    if fewest <= options.candidates {
        notes.push(format!(
            "Some users left too few items unmet: the shortest list has {}.",
            counted(fewest, "candidate")
        ));
    }
    let notes: Vec<String> = notes.iter().map(|text| note(text)).collect();
    format!("\n{}\n", notes.join("\n"))
}

/// The table of latency against the length of the history.
pub(crate) fn latency(series: &[Series], lengths: &[usize], requests: &[Request]) -> String {
    let titles = lengths.iter().map(|&length| count(length));
    let mut rows =
        vec![std::iter::once("median ms, by behaviours".to_string()).chain(titles).collect::<Vec<_>>()];
    for series in series {
        let times = series.points.iter().map(|point| figures(point.1));
        rows.push(std::iter::once(series.name.clone()).chain(times).collect());
    }
    let behaviours: usize = requests.iter().map(|request| request.history.len()).sum();
    let again = if lengths.last().is_some_and(|&longest| longest > behaviours) {
        format!(" (over again where the {} there are do not suffice)", count(behaviours))
    } else {
        String::new()
    };
    let made = format!(
        "One request with {}; its history is made of real users' histories, one after the other{again}, cut to length.",
        counted(requests.first().map_or(0, |request| request.candidates.len()), "candidate")
    );
    format!("{}\n\n{}", table(&rows), note(&made))
}
