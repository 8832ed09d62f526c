//! The way to a server, on which everything can be lost.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::server::Redis;

pub(crate) struct Way {
    addr: SocketAddr,
    lost: watch::Sender<usize>,
}

impl Way {
    pub(crate) async fn to(redis: &Redis) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (addr, server) = (listener.local_addr().unwrap(), redis.addr());
        let (lost, losses) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let mut losses = losses.clone();
                losses.mark_unchanged();
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut here, &mut there) => {}
                        // Both ends stay open, and hear nothing.
                        Ok(()) = losses.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { addr, lost }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// From now on nothing passes over the connections that stand. New ones work.
    pub(crate) fn lose(&self) {
        self.lost.send_modify(|losses| *losses += 1);
    }
}
