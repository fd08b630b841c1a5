// When each key was last asked with: by usage.db, and by what nginx has counted and nobody collected yet.
// Used by `key list` and `key show`. By the hour, as usage is counted.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "session.hpp"
#include "usage_store.hpp"

namespace keyloader {

class LastUse {
 public:
  explicit LastUse(const Session& session);

  // The begin of that hour; 0: never, as far as is known. A request that was refused counts: somebody has the key.
  [[nodiscard]] Seconds of(const apikey::KeyId& key);
  // Since when use is counted here; nothing: it is not.
  [[nodiscard]] std::optional<Seconds> known_since() const { return known_since_; }
  // Why a use may be missing here, as a sentence; empty: none is.
  [[nodiscard]] const std::string& problem() const { return problem_; }
  void warn_of_problem() const;

 private:
  void know_since(Seconds time);

  std::unique_ptr<UsageStore> store_;
  std::map<apikey::KeyId, Seconds> live_;
  std::optional<Seconds> known_since_;
  std::string problem_;
};

}  // namespace keyloader
