// Who makes the changes of a command: whoever may write the registry, or the administrator whose key is in --key-file.
// The key is read, and wiped as soon as it is known which it is.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "directory_owner.hpp"
#include "file_descriptor.hpp"
#include "secret.hpp"
#include "session.hpp"

namespace keyloader {
namespace {

SecretText read_key(const std::string& file) {
  if (file == "-") {
    return read_secret_from_stdin();
  }
  const AsCaller named_by_the_caller;
  const FileDescriptor fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  struct stat status {};
  if (fd.get() < 0 || fstat(fd.get(), &status) != 0) {
    fail_errno("read the key in", file);
  }
  if (!S_ISREG(status.st_mode)) {
    throw Failure(fmt::format("{} is {}; --key-file takes the file that holds the key, or - for standard input", file,
                              S_ISDIR(status.st_mode) ? "a directory" : "no regular file"));
  }
  if ((status.st_mode & 0077) != 0) {
    throw Failure(fmt::format("{} is not a file that its owner alone can read; `chmod 600` it", file));
  }
  return read_secret(fd.get(), "in " + file);
}

apikey::KeyId administrator(const Session& session, Registry& registry) {
  const SecretText secret = read_key(session.key_file);
  DigestMethods methods(session.dir(), registry);
  for (const std::string& method : methods.names()) {
    const auto key = registry.key(methods.digest(method, secret.view()));
    if (key && key->method == method) {
      return key->id;
    }
  }
  throw Failure(fmt::format("the key {} is not in this registry",
                            session.key_file == "-" ? "on standard input" : "in " + session.key_file));
}

}  // namespace

std::unique_ptr<Registry> Session::open_registry() const {
  if (!key_file.empty() && breaks_glass) {
    throw UsageError("--break-glass is for whoever is on the machine itself, not for an administrator's key");
  }
  auto registry = dir().open_registry();
  Caller caller{.breaks_glass = breaks_glass};
  if (!key_file.empty()) {
    caller.admin = administrator(*this, *registry);
  }
  registry->act_as(caller);
  return registry;
}

}  // namespace keyloader
