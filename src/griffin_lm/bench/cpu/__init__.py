"""Speed on a CPU beside its limits and beside peers: decoding, prefill, scans."""
