# Sidekiq: a job, `perform_async` and `perform_bulk`. Run by sidekiq.py; contract.py says what is in the environment.
# `ruby sidekiq.rb version` tells which Sidekiq this is, and on what.

require 'json'
require 'logger'
require 'sidekiq'
begin
  require Sidekiq::VERSION.to_i < 7 ? 'redis/connection/hiredis' : 'hiredis-client'
  PARSER = 'hiredis' # which both make the default where they are loaded
rescue LoadError
  PARSER = 'no hiredis'
end

Sidekiq.configure_server { |config| config.logger.level = Logger::WARN }
Sidekiq.configure_client { |config| config.logger.level = Logger::WARN }

class Handle
  include Sidekiq::Job

  RECORD = File.open(ENV.fetch('PEERS_RECORD', File::NULL), File::WRONLY | File::APPEND | File::CREAT)
  HOLD = ENV.fetch('PEERS_HOLD', '0').to_f

  def perform(item)
    RECORD.syswrite([Process.clock_gettime(Process::CLOCK_MONOTONIC), item].pack('Eq<'))
    sleep HOLD if HOLD > 0
  end
end

def push(items)
  pace = ENV.fetch('PEERS_PACE', '0').to_f
  Sidekiq.redis { |connection| connection.call('PING') }
  start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  if ENV.fetch('PEERS_MODE').include?('perform_bulk')
    items.each_slice(100) { |slice| Handle.perform_bulk(slice.zip) }
  else
    items.each do |item|
      Handle.perform_async(item)
      sleep pace if pace > 0
    end
  end
  puts JSON.generate(seconds: Process.clock_gettime(Process::CLOCK_MONOTONIC) - start)
end

if $PROGRAM_NAME == __FILE__
  if ARGV[0] == 'push'
    first, count = ARGV[1..].map(&:to_i)
    push(first...(first + count))
  else
    print "sidekiq==#{Sidekiq::VERSION}, ruby==#{RUBY_VERSION}, #{PARSER}"
  end
end
