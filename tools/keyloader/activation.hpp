// Whether a published snapshot is active: every worker of every nginx that reads this keys.mdb has acknowledged it, or
// has fenced itself. Waits for that, from node memory alone. What nobody can see is not active.
// Called after every publish, rollback and installation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "apikey/meta.hpp"
#include "data_dir.hpp"

namespace keyloader {

// What is waited for.
struct Target {
  apikey::RegistryId registry_id{};
  std::uint64_t generation = 0;
  apikey::SealHash seal{};
  bool only_restricts = false;  // a veto is enough: it revokes and suspends
};

enum class Activity : std::uint8_t {
  active,   // in every nginx that is known
  unknown,  // no nginx is known that reads this keys.mdb, or nobody waited
  stopped,  // those that read this keys.mdb do not run
  not_yet,  // it took too long
  refused,  // an nginx has refused it, or has it as a veto only
};

struct Activation {
  Activity activity = Activity::unknown;
  std::string sentence;  // "active in nginx (pid 812)", "nginx (pid 812) still uses generation 57: …"
};

struct Patience {
  std::uint64_t wait_ms = 0;
  bool waits_for_nginx = false;  // also until one is there that reads this keys.mdb
};

// Waits at most `wait_ms` from the last sign that nginx is verifying, and at most a minute for that.
Activation wait_until_active(const DataDir& directory, const std::filesystem::path& runtime, const Target& target,
                             const Patience& patience);

}  // namespace keyloader
