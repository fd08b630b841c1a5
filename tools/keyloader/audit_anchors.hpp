// Where the audit has been seen from outside of the registry: each snapshot names the newest entry of its time, and
// nginx keeps those of the last 1,000 that it adopted. Whoever rewrites the whole chain cannot rewrite those.
// Used by `audit verify --anchors`.
#pragma once

#include <map>
#include <string>

#include "registry/registry.hpp"
#include "session.hpp"

namespace keyloader {

class AuditAnchors {
 public:
  // keys.mdb, history/ and node memory, as far as they are of this registry. What lies in node memory is nginx's word:
  // it can be missing, and a wrong one is reported, not believed.
  AuditAnchors(const Session& session, const apikey::RegistryId& registry);

  // Throws Failure where the entry of this number is another one than was seen.
  void check(std::uint64_t seq, const Hash& hash);
  // Throws Failure where a later entry was seen than the last one that there is.
  void check_end(std::uint64_t last_seq) const;

  [[nodiscard]] std::uint64_t checked() const { return checked_; }
  [[nodiscard]] std::uint64_t unchecked() const;  // their entries were not shown to check()

 private:
  void add(std::uint64_t seq, const Hash& hash, const std::string& where);

  // By number of the entry, then by hash: who has seen it.
  std::map<std::uint64_t, std::map<Hash, std::string>> seen_;
  std::uint64_t checked_ = 0;
};

}  // namespace keyloader
