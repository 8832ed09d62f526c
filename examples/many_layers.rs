//! What a layer costs to make: a thousand layers of one provider, in time and in memory (`--release`).

use std::time::Instant;

use tower_oauth2_client::{AuthLayer, ConfigError, providers};

const LAYERS: usize = 1000;

fn main() -> Result<(), ConfigError> {
    let mut layers = Vec::with_capacity(LAYERS);
    let mut result = Ok(());
    let start = Instant::now();
    // Of this thread: what is made here is kept here.
    let allocated = allocation_counter::measure(|| {
        result = (0..LAYERS).try_for_each(|n| {
            let cfg = providers::spry("clinic.example.com", format!("client-{n}"), "secret").build()?;
            layers.push(AuthLayer::new(cfg));
            Ok(())
        });
    });
    let took = start.elapsed();
    result?;
    let each = |total: f64| total / LAYERS as f64;
    println!(
        "{} layers: {:.3} ms and {:.1} KiB each",
        layers.len(),
        each(took.as_secs_f64() * 1000.0),
        each(allocated.bytes_current as f64) / 1024.0
    );
    Ok(())
}
