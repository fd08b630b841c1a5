// Turns an LMDB file that another writer made (docs/snapshot-format.md) into a snapshot: a checked copy with index and
// seal. Called by `snapshot seal` and, for its last two steps, by SnapshotWriter.
// Never writes to the file it is given.
#pragma once

#include <filesystem>

#include "apikey/seal.hpp"
#include "apikey/status.hpp"

namespace apikey::publish {

// Copies `in` to a temporary file beside `out`, verifies the copy, adds index and seal, verifies again, syncs, renames
// it to `out` (0640). RETURNS: refused when a process has `in` open through its lock file, or when `in` has no
// readable content; damaged, unsupported … as verify_unsealed().
Status seal_file(const std::filesystem::path& in, const std::filesystem::path& out, Seal& seal);

// The two steps on a private temporary file nobody else has open. `add_index` (re)writes database `index`;
// `add_seal` brings the file to its exact length and appends the seal page.
Status add_index(const std::filesystem::path& file);
Status add_seal(const std::filesystem::path& file, Seal& seal);

}  // namespace apikey::publish
